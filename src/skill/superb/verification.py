"""Speaker verification: an x-vector trained with additive-margin softmax, scored by cosine.

Legend: B utterances, T frames, D width, K speakers.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skill.config.tasks import Task
from skill.superb.counts import Counts, TrialScores
from skill.superb.downstream import Downstream
from skill.superb.examples import Example, Fold
from skill.superb.heads import WeightedSum

CONTEXTS = ((5, 1), (3, 2), (3, 3), (1, 1), (1, 1))  # frames seen by each layer, and their distance
LOST_FRAMES = sum((context - 1) * dilation for context, dilation in CONTEXTS)
MARGIN, SCALE = 0.4, 30.0


class XVector(nn.Module):
    """Time-delay layers without padding, mean and deviation over time, two linear layers.

    The embedding is the first linear layer's output after ReLU; training looks at the second's.
    In training, a padded utterance counts one frame of padding in its statistics, as in the
    protocol's code; that evaluates one utterance at a time, so here evaluation counts none.
    """

    def __init__(self, states: int, width: int, hidden: int, pooled: int, speakers: int) -> None:
        super().__init__()
        self.featurizer = WeightedSum(states)
        self.projector = nn.Linear(width, hidden)
        outputs = [hidden] * (len(CONTEXTS) - 1) + [pooled]
        self.delays = nn.ModuleList(
            nn.Conv1d(hidden, size, context, dilation=dilation)
            for size, (context, dilation) in zip(outputs, CONTEXTS, strict=True)
        )
        self.embedding = nn.Linear(2 * pooled, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.speakers = nn.Parameter(torch.empty(hidden, speakers))
        nn.init.xavier_normal_(self.speakers)

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """[L, B, T, D] and lengths [B] to embeddings [B, hidden]."""
        x = self.projector(self.featurizer(states)).transpose(1, 2)
        short = LOST_FRAMES + 2 - x.shape[2]
        if short > 0:
            x = F.pad(x, (0, short))
        for layer in self.delays:
            x = F.relu(layer(x))
        lengths = lengths.to(x.device)
        counted = lengths - LOST_FRAMES
        if self.training:
            counted = counted + (lengths < lengths.max())
        counted = counted.clamp(min=2)
        valid = (torch.arange(x.shape[2], device=x.device) < counted[:, None])[:, None]
        mean = (x * valid).sum(dim=2) / counted[:, None]
        squares = ((x - mean[..., None]).square() * valid).sum(dim=2) / (counted[:, None] - 1)
        deviation = squares.clamp(min=1e-12).sqrt()
        return F.relu(self.embedding(torch.cat([mean, deviation], dim=1)))

    def similarities(self, embeddings: Tensor) -> Tensor:
        """[B, hidden] to cosines with every training speaker [B, K]."""
        training = F.relu(self.second(embeddings))
        return F.normalize(training, dim=1) @ F.normalize(self.speakers, dim=0)


def additive_margin_loss(cosines: Tensor, speakers: Tensor) -> Tensor:
    """Cross-entropy of s (cos - m) for the true speaker and s cos for the others, s 30, m 0.4."""
    margin = MARGIN * F.one_hot(speakers, cosines.shape[1])
    return F.cross_entropy(SCALE * (cosines - margin), speakers)


class Verification(Downstream):
    """ASV: train on some speakers, tell whether two utterances of unseen speakers agree."""

    def __init__(self, task: Task, fold: Fold, hop: int = 320) -> None:
        super().__init__(task, fold, hop)
        self.trials = fold.trials
        self.speakers = len(fold.labels[0])

    def build(self, states: int, width: int) -> nn.Module:
        return XVector(states, width, self.task.hidden, self.task.pooled, self.speakers)

    def loss(
        self, head: nn.Module, states: Tensor, lengths: Tensor, examples: Sequence[Example]
    ) -> Tensor:
        targets = torch.tensor([example.target[0] for example in examples], device=states.device)
        assert isinstance(head, XVector)
        return additive_margin_loss(head.similarities(head(states, lengths)), targets)

    def predictions(
        self, head: nn.Module, states: Tensor, lengths: Tensor, examples: Sequence[Example]
    ) -> list[Any]:
        return list(F.normalize(head(states, lengths), dim=1).cpu().numpy())

    def _splits(self, examples: Sequence[Example]) -> list[str]:
        """The splits of which all utterances are there: dev, test or both."""
        there = {example.id for example in examples}
        return [
            split
            for split in ("dev", "test")
            if self.trials.get(split)
            and all(t.first in there and t.second in there for t in self.trials[split])
        ]

    def counts(self, examples: Sequence[Example], answers: Sequence[Any]) -> Counts:
        """Scores and labels of the trials: `eer` of dev if there, `eer_test` where both are."""
        splits = self._splits(examples)
        vectors = {e.id: vector for e, vector in zip(examples, answers, strict=True)}
        names = ["eer", *(f"eer_{split}" for split in splits[1:])]
        return {
            name: TrialScores(
                np.array([vectors[t.first] @ vectors[t.second] for t in self.trials[split]]),
                np.array([float(t.same) for t in self.trials[split]]),
            )
            for name, split in zip(names, splits, strict=True)
        }

    def items(self, examples: Sequence[Example]) -> list[tuple[str, Hashable]]:
        split = self._splits(examples)[0]
        return [(f"{t.first}:{t.second}", t.cluster) for t in self.trials[split]]

    def dev_examples(self) -> list[Example]:
        """Dev and test: the protocol's number is the best that any checkpoint had on the test."""
        return list({example.id: example for example in (*self.fold.dev, *self.fold.test)}.values())
