"""DPHuBERT's own models as a candidate of `training.py`: a stage-1 step that runs its code.

    git clone https://github.com/pyf98/DPHuBERT FOLDER

Nothing of it is copied here. Its `wav2vec2` package (gated models, features, expected size) is
imported from the folder; what its lightning.py and distill.py put around that is written anew,
because they need a Lightning of 2022: values are those of its run.sh.

Axes: B utterances, S samples (16 kHz), L layers, T frames, D width.
"""

import importlib
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skill.data.batches import Batch
from skill.distillation.sparsity import full_size
from skill.encoder import SpeechEncoder
from skill.encoder.formats.dphubert import write_dphubert

LAYERS = (0, 4, 8, 12)
SPARSITY = 0.75
GATED = {
    "extractor_prune_conv_channels": True,
    "encoder_prune_attention_heads": True,
    "encoder_prune_feed_forward_intermediate": True,
}


class Peer(nn.Module):
    """Teacher, gated student, projections and λ, driven as
    `skill.distillation.distiller.Distiller` is."""

    def __init__(self, folder: Path, teacher: SpeechEncoder, learning_rate: float) -> None:
        """Teacher and student get their weights as its distill.py reads them, from a file.

        Args:
            folder: a checkout of DPHuBERT.
            teacher: unpruned, ours.
            learning_rate: of everything; λ ascend.

        Raises:
            ValueError: its model and ours are not of one size.
        """
        super().__init__()
        with tempfile.NamedTemporaryFile(suffix=".pth") as file:
            write_dphubert(teacher, file.name)
            written = torch.load(file.name, weights_only=True)
        build = package(folder).wav2vec2_model
        self.teacher = build(**written["config"]).requires_grad_(False)
        self.student = build(**written["config"], **GATED)
        self.teacher.load_state_dict(written["state_dict"])
        self.student.load_state_dict(written["state_dict"], strict=False)  # gates are not in it
        self.full = sum(p.numel() for p in self.teacher.parameters())
        if self.full != full_size(teacher):
            raise ValueError(f"{folder}: {self.full} parameters, ours has {full_size(teacher)}")
        own, shared = (identity(teacher.config.width) for _ in range(2))
        self.projections = nn.ModuleList([own, *[shared] * (len(LAYERS) - 1)])
        self.lambda1 = nn.Parameter(torch.zeros(()))
        self.lambda2 = nn.Parameter(torch.zeros(()))
        self.learning_rate = learning_rate

    def parameter_groups(self) -> list[dict[str, Any]]:
        """For AdamW: weights, gates and the λ, which its code has ascend by a negative rate."""
        named = dict(self.student.named_parameters())
        gates = [p for name, p in named.items() if "log_alpha" in name]
        weights = [p for name, p in named.items() if "log_alpha" not in name]
        rate = self.learning_rate
        return [
            {"params": [*weights, *self.projections.parameters()], "lr": rate},
            {"params": gates, "lr": rate},
            {"params": [self.lambda1, self.lambda2], "lr": -rate},
        ]

    def begin_step(self, step: int) -> None:
        """Modes: the student's dropout is on, the teacher's is off."""
        self.train()
        self.teacher.eval()

    def losses(self, batch: Batch, step: int) -> Mapping[str, Tensor]:
        """`loss`: L1 − cosine over all layers at once, and the Lagrangian at the last target."""
        lengths = batch.lengths.to(batch.waveforms.device)
        with torch.no_grad():
            states, _ = self.teacher.extract_features(batch.waveforms, lengths)
            wanted = torch.stack([states[layer] for layer in LAYERS], dim=1)  # [B, L, T, D]
        states, _ = self.student.extract_features(batch.waveforms, lengths)
        pairs = zip(LAYERS, self.projections, strict=True)
        predicted = torch.stack([project(states[layer]) for layer, project in pairs], dim=1)
        distance = F.l1_loss(predicted, wanted)
        distance = distance - F.cosine_similarity(predicted, wanted, dim=-1).mean()
        gap = 1 - self.student.get_num_params() / self.full - SPARSITY
        return {"loss": distance + self.lambda1 * gap + self.lambda2 * gap.square()}


def package(folder: Path) -> Any:
    """The module that builds its models."""
    # On the path for this import only: the folder has a lightning.py, which would hide the package.
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("wav2vec2.model")
    finally:
        sys.path.remove(str(folder))


def identity(width: int) -> nn.Linear:
    """A projection as it begins."""
    linear = nn.Linear(width, width)
    nn.init.eye_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
