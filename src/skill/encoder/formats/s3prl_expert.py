"""A compressed speech encoder as an upstream of s3prl.

Axes: B utterances, T frames (20 ms), D width.

An exported folder has this module, as `expert.py`, beside copies of the encoder's modules, so that
it loads where only torch and safetensors are installed.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ..config import EncoderConfig
from ..model import SpeechEncoder


class UpstreamExpert(nn.Module):
    """What s3prl calls: a list of waveforms to all states, the first block's input first.

    The states of an utterance do not depend on the others of its batch.

    Args:
        ckpt: the weights; by default those beside this file.
        model_config: not used; the architecture stands in the weights' header.
    """

    def __init__(self, ckpt: str | None = None, model_config: str | None = None, **_: Any) -> None:
        super().__init__()
        path = Path(ckpt) if ckpt else Path(__file__).with_name("model.safetensors")
        with safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()["skill"])
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        self.model = SpeechEncoder(EncoderConfig.from_dict(header["config"]))
        self.model.load_state_dict(weights)
        self.model.exact_padding = True

    def get_downsample_rates(self, key: str) -> int:
        """Samples per frame, whatever the feature's name."""
        return math.prod(self.model.config.conv_strides)

    def forward(self, wavs: list[Tensor]) -> dict[str, Any]:
        """B waveforms of 16 kHz to `hidden_states`, each [B, T, D], and `last_hidden_state`.

        Raises:
            ValueError: a waveform is shorter than one frame, or has a value that is not finite.
        """
        lengths = torch.tensor([len(wav) for wav in wavs], device=wavs[0].device)
        padded = nn.utils.rnn.pad_sequence(wavs, batch_first=True)
        if not padded.isfinite().all():
            raise ValueError("a waveform has a value that is not finite")
        states, _ = self.model(padded, lengths)
        return {"hidden_states": states, "last_hidden_state": states[-1]}
