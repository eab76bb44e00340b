"""Compaction: in stage 1, units whose gates stay shut are removed before the stage ends.

Most gates close for good soon after the sparsity has risen, yet their units take part in every step
as zeros. `lasting` says which units stay, `compacted` gives the smaller student. In evaluation it
is the same function; in training it differs by the gates that would have opened by chance, fewer
than one in 10,000. Gates are not multiplied into weights: what stays has its gates and goes on.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from skill.distillation import gates
from skill.distillation.gates import HardConcrete
from skill.distillation.pruning import Kept, cut, settled
from skill.encoder import EncoderConfig, SpeechEncoder

SHUT = 1e-4


@torch.no_grad()
def lasting(encoder: SpeechEncoder, smallest: float) -> Kept | None:
    """The units that are open with a probability of at least `SHUT`.

    Every convolution keeps a channel. A module of which the rounded expected number of open gates
    would change waits for the next time, so that the function in evaluation stays what it is.

    Returns:
        None where nothing goes, or where fewer than `smallest` parameters would stay: the final
        selection could not meet its target any more.
    """
    config, device = encoder.config, next(encoder.parameters()).device
    channels = [
        _open(layer.gate, count, device, least=1)
        for layer, count in zip(encoder.convolutions, config.conv_channels, strict=True)
    ]
    heads, units = [], []
    for block, numbers, ffn in zip(encoder.blocks, config.heads, config.ffn, strict=True):
        whole = _open(block.attention_gate, 1, device)
        heads.append(_open(block.attention.gate, len(numbers), device) & whole)
        units.append(_open(block.feed_forward.gate, ffn, device) & _open(block.ffn_gate, 1, device))
    masked = not all(bool(left.all()) for left in channels)
    kept = Kept(channels, heads, units, masked)
    left = kept.config(config)
    if left == config:
        return None
    with torch.device("meta"):
        size = SpeechEncoder(left).num_parameters()
    return None if size < smallest else kept


@torch.no_grad()
def compacted(encoder: SpeechEncoder, kept: Kept) -> SpeechEncoder:
    """A copy of a gated encoder with the units of `kept` and their gates."""
    state = encoder.state_dict()
    state |= settled(state, kept, encoder)
    student = shaped(encoder, kept.config(encoder.config))
    student.load_state_dict(cut(state, kept, encoder.config.head_width))
    return student


def shaped(encoder: SpeechEncoder, config: EncoderConfig) -> SpeechEncoder:
    """A new encoder of architecture `config` with gates on the same kinds of units."""
    student = SpeechEncoder(config).to(next(encoder.parameters()))
    student.exact_padding = encoder.exact_padding
    gates.attach(student.train(encoder.training), tuple(_kinds(encoder)))
    return student


def _open(gate: nn.Module | None, count: int, device: torch.device, least: int = 0) -> Tensor:
    """[count], False where a unit goes."""
    everything = torch.ones(count, dtype=torch.bool, device=device)
    if not isinstance(gate, HardConcrete):
        return everything
    probability = gate.open_probability()
    stays = probability >= SHUT
    if int(stays.sum()) < least:
        stays[probability.argmax()] = True
    same = round(float(probability[stays].sum())) == round(float(probability.sum()))
    return stays if same else everything


def _kinds(encoder: SpeechEncoder) -> Iterator[str]:
    """The kinds of units that have gates."""
    if any(layer.gate is not None for layer in encoder.convolutions):
        yield "conv"
    for kind, found in (
        ("head", [block.attention.gate for block in encoder.blocks]),
        ("ffn", [block.feed_forward.gate for block in encoder.blocks]),
        ("attention_layer", [block.attention_gate for block in encoder.blocks]),
        ("ffn_layer", [block.ffn_gate for block in encoder.blocks]),
    ):
        if any(gate is not None for gate in found):
            yield kind
