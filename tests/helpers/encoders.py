"""Small encoders of every shape, their references in `transformers`, and how they are compared."""

from typing import Any

import torch
from torch import Tensor
from transformers import (
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
)

from skill.distillation import gates
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.teachers import filterbank_init

REFERENCES = {
    "wavlm": (WavLMConfig, WavLMModel),
    "hubert": (HubertConfig, HubertModel),
    "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model),
}


def pair(family: str, large: bool, *, heads: int = 4, blocks: int = 3, seed: int = 0) -> Any:
    """The same random weights in `transformers` and here."""
    torch.manual_seed(seed)
    others: dict[str, Any] = {}
    own: dict[str, Any] = {}
    if large:
        others = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
        own = {"conv_norm": "layer", "pre_norm": True, "conv_bias": True}
    config, model = REFERENCES[family]
    reference = model(
        config(
            hidden_size=16 * heads,
            num_hidden_layers=blocks,
            num_attention_heads=heads,
            intermediate_size=40,
            conv_dim=[24] * 7,
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=4,
            **others,
        )
    ).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    encoder = SpeechEncoder(
        EncoderConfig.uniform(
            family,  # type: ignore[arg-type]
            width=16 * heads,
            blocks=blocks,
            heads=heads,
            ffn=40,
            conv=24,
            pos_conv_kernel=16,
            pos_conv_groups=4,
            **own,
        )
    ).eval()
    state = {k: v for k, v in reference.state_dict().items() if k != "masked_spec_embed"}
    encoder.load_state_dict(state)
    return reference, encoder


def utterances(lengths: list[int], dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    waveforms = torch.randn(len(lengths), max(lengths), dtype=dtype, generator=generator)
    return waveforms * (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]), torch.tensor(
        lengths
    )


def reference_states(reference: Any, waveforms: Tensor, mask: Tensor | None) -> list[Tensor]:
    """All states by this project's convention: the last one is the model's output.

    For pre-norm models `transformers` 5 records the last state before the final layer norm, while
    its version 4 and s3prl, whose convention SUPERB has, take it after.
    """
    out = reference(waveforms, attention_mask=mask, output_hidden_states=True)
    return [*out.hidden_states[:-1], out.last_hidden_state]


def error(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def irregular(family: str = "wavlm", normalize: bool = False) -> SpeechEncoder:
    """A pruned architecture: every layer another width, one layer with nothing left."""
    torch.manual_seed(0)
    others = {"relative_buckets": 32, "relative_distance": 80} if family == "wavlm" else {}
    config = EncoderConfig(
        family=family,  # type: ignore[arg-type]
        width=32,
        conv_channels=(8, 7, 8, 6, 5, 8, 9),
        conv_full_width=12,
        conv_masked=True,
        heads=((0, 2), (), (1, 2, 3)),
        total_heads=4,
        ffn=(20, 7, 0),
        pos_conv_kernel=16,
        pos_conv_groups=4,
        normalize_waveform=normalize,
        **others,  # type: ignore[arg-type]
    )
    encoder = SpeechEncoder(config).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return encoder


KINDS = [("conv",), ("head",), ("ffn",), ("attention_layer",), ("ffn_layer",), gates.UNITS]


def gated(
    family: str,
    units: tuple[str, ...],
    *,
    large: bool = False,
    filters: bool = False,
    seed: int = 0,
) -> SpeechEncoder:
    """Random weights and gates; `filters`: with the convolutions of the sample teachers."""
    torch.manual_seed(seed)
    others = {"conv_norm": "layer", "pre_norm": True, "conv_bias": True} if large else {}
    config = EncoderConfig.uniform(
        family,  # type: ignore[arg-type]
        width=64,
        blocks=3,
        heads=4,
        ffn=48,
        conv=24,
        pos_conv_kernel=16,
        pos_conv_groups=4,
        **others,
    )
    encoder = SpeechEncoder(filterbank_init.shaped(config, 8, 3) if filters else config)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    gates.attach(encoder, units)
    for _, gate in gates.gates_of(encoder):
        gate.log_alpha.data.normal_(0, 2)
    return encoder.eval()


def assert_same(one: SpeechEncoder, other: SpeechEncoder) -> None:
    waveforms = torch.randn(2, 9000, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([9000, 7000])
    for dtype, limit in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        with torch.no_grad():
            a, frames = one.to(dtype)(waveforms.to(dtype), lengths)
            b, _ = other.to(dtype)(waveforms.to(dtype), lengths)
        for x, y in zip(a, b, strict=True):
            for row, count in enumerate(frames.tolist()):
                x_row, y_row = x[row, :count], y[row, :count]
                assert float((x_row - y_row).norm() / x_row.norm()) < limit
