"""A compressed speech encoder as a model of `transformers`.

Axes: B utterances, S samples (16 kHz), T frames (20 ms), D width, V labels.

An exported folder has this module beside copies of the encoder's modules, so that it loads where
only `transformers` is installed. The tensors in the folder are those of the encoder alone.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput

from ..blocks import Block, SelfAttention
from ..config import EncoderConfig
from ..convolutions import PositionalConv  # noqa: F401  transformers 4 copies what is named here
from ..float32 import Conv1d  # noqa: F401
from ..gating import GateSample  # noqa: F401
from ..model import SpeechEncoder


class SkillConfig(PretrainedConfig):
    """The encoder's architecture (`encoder`), and the head's labels."""

    model_type = "skill"

    def __init__(
        self,
        encoder: dict[str, Any] | None = None,
        vocab_size: int = 32,
        pad_token_id: int = 0,
        final_dropout: float = 0.0,
        **others: Any,
    ) -> None:
        self.encoder = EncoderConfig.base("wavlm").to_dict() if encoder is None else encoder
        self.vocab_size = vocab_size
        self.pad_token_id = pad_token_id
        self.final_dropout = final_dropout
        super().__init__(**others)

    @property
    def hidden_size(self) -> int:
        """D."""
        return int(self.encoder["width"])

    @property
    def num_hidden_layers(self) -> int:
        """The number of blocks; there is one more state."""
        return len(self.encoder["heads"])


class SkillPreTrainedModel(PreTrainedModel):  # type: ignore[misc]
    """What the models share: loading, initialisation and gradient checkpointing."""

    config_class = SkillConfig
    base_model_prefix = "speech"
    main_input_name = "input_values"
    supports_gradient_checkpointing = True
    gradient_checkpointing = False
    _supports_sdpa = True
    _no_split_modules = ["Block"]  # noqa: RUF012

    def __init__(self, config: SkillConfig) -> None:
        super().__init__(config)
        architecture = EncoderConfig.from_dict(config.encoder)
        # The feature extractor normalises the waveforms where the model wants it.
        self.speech = SpeechEncoder(replace(architecture, normalize_waveform=False))

    def _init_weights(self, module: nn.Module) -> None:
        """What no checkpoint holds: the heads' numbers, and a head that is to be trained."""
        if isinstance(module, SelfAttention):
            module.index.copy_(torch.tensor(module.heads, dtype=torch.long))
        elif isinstance(module, nn.Linear) and module is getattr(self, "lm_head", None):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)

    def _set_gradient_checkpointing(
        self,
        enable: bool = True,
        gradient_checkpointing_func: Any = checkpoint,
        every_n_layers: int | None = None,
    ) -> None:
        for index, block in enumerate(self.speech.blocks):
            block.__dict__.pop("forward", None)
            if enable and index % (every_n_layers or 1) == 0:
                forward = partial(gradient_checkpointing_func, partial(Block.forward, block))
                object.__setattr__(block, "forward", forward)
        self.gradient_checkpointing = enable

    def freeze_feature_encoder(self) -> None:
        """Keep the convolutions as they are while the rest is trained."""
        self.speech.feature_extractor.requires_grad_(False)

    def _states(self, waveforms: Tensor, mask: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """All states [B, T, D] of waveforms [B, S] and the number of frames of each [B].

        Raises:
            ValueError: a value is not finite or no float, the mask [B, S] has another shape than
                the waveforms or padding before speech, or a waveform is shorter than one frame.
        """
        if mask is not None and mask.shape != waveforms.shape:
            raise ValueError(
                f"attention_mask has the shape {list(mask.shape)}, "
                f"input_values {list(waveforms.shape)}"
            )
        if not waveforms.is_floating_point():
            raise ValueError(f"input_values is {waveforms.dtype}: speech is floats from -1 to 1")
        if not torch.compiler.is_compiling():  # where a check would break the graph
            if not waveforms.isfinite().all():
                raise ValueError("input_values has a value that is not finite")
            if mask is not None and (mask.long().diff(dim=1) > 0).any():
                raise ValueError("attention_mask: padding has to stand at the end")
        lengths = None if mask is None else mask.long().sum(1)
        return self.speech(waveforms, lengths)  # type: ignore[no-any-return]

    def _setting(self, name: str, argument: bool | None) -> bool:
        return bool(getattr(self.config, name, False) if argument is None else argument)


class SkillModel(SkillPreTrainedModel):
    """Waveforms [B, S] to states [B, T, D]."""

    def __init__(self, config: SkillConfig) -> None:
        super().__init__(config)
        self.post_init()

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **_: Any,
    ) -> BaseModelOutput | tuple[Any, ...]:
        """The last state and, if asked for, all states, the first block's input first."""
        states, _frames = self._states(input_values, attention_mask)
        shown = self._setting("output_hidden_states", output_hidden_states)
        output = BaseModelOutput(
            last_hidden_state=states[-1], hidden_states=tuple(states) if shown else None
        )
        return output if self._setting("return_dict", return_dict) else output.to_tuple()


class SkillForCTC(SkillPreTrainedModel):
    """The encoder with a linear head over labels; label `pad_token_id` is CTC's blank."""

    def __init__(self, config: SkillConfig) -> None:
        super().__init__(config)
        self.dropout = nn.Dropout(config.final_dropout)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **_: Any,
    ) -> CausalLMOutput | tuple[Any, ...]:
        """Logits [B, T, V] and, given `labels` [B, U] (negative: padding), the mean CTC loss."""
        states, frames = self._states(input_values, attention_mask)
        logits = self.lm_head(self.dropout(states[-1]))
        loss = None
        if labels is not None:
            real = labels >= 0
            loss = F.ctc_loss(
                logits.float().log_softmax(-1).transpose(0, 1),
                labels[real],
                frames,
                real.sum(1),
                blank=self.config.pad_token_id,
                zero_infinity=True,
            )
        shown = self._setting("output_hidden_states", output_hidden_states)
        output = CausalLMOutput(
            loss=loss, logits=logits, hidden_states=tuple(states) if shown else None
        )
        return output if self._setting("return_dict", return_dict) else output.to_tuple()
