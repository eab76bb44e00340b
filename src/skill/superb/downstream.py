"""What a task asks of a head: how it is built, its loss, its answers, and how these are counted.

Legend: L states, B utterances, T frames, D width, C outputs.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from skill.config.tasks import Task
from skill.superb import metrics, slots, vocabulary
from skill.superb.counts import Counts, Ratio
from skill.superb.examples import Example, Fold
from skill.superb.heads import FrameHead, MeanHead, RecurrentHead


class Downstream(ABC):
    """A trainable task. `pooled`: its head needs only the time mean of each state."""

    pooled = False

    def __init__(self, task: Task, fold: Fold, hop: int) -> None:
        self.task, self.fold, self.hop = task, fold, hop

    @abstractmethod
    def build(self, states: int, width: int) -> nn.Module:
        """A new head for an upstream of so many states of this width."""

    @abstractmethod
    def loss(
        self, head: nn.Module, states: Tensor, lengths: Tensor, examples: Sequence[Example]
    ) -> Tensor:
        """What training minimises, on states [L, B, T, D] or (`pooled`) means [L, B, D]."""

    @abstractmethod
    def predictions(
        self, head: nn.Module, states: Tensor, lengths: Tensor, examples: Sequence[Example]
    ) -> list[Any]:
        """What the head says of each example."""

    @abstractmethod
    def counts(self, examples: Sequence[Example], answers: Sequence[Any]) -> Counts:
        """What each metric is computed from."""

    def items(self, examples: Sequence[Example]) -> list[tuple[str, Hashable]]:
        """Name and cluster of each item that `counts` counts."""
        return [(example.id, example.cluster) for example in examples]

    def dev_examples(self) -> list[Example]:
        """What is answered during training, to choose a checkpoint."""
        return self.fold.dev

    def choose_reported(self, dev: Counts, test: Counts) -> Counts:
        """The test counts that are reported, where something is still to be chosen on dev."""
        return test


class Classification(Downstream):
    """KS, SID, IC, ER: one class, or several of different kinds (targets are tuples of ids)."""

    pooled = True

    def __init__(self, task: Task, fold: Fold, hop: int = 320) -> None:
        super().__init__(task, fold, hop)
        self.sizes = [len(names) for names in fold.labels]

    def build(self, states: int, width: int) -> nn.Module:
        return MeanHead(states, width, self.task.hidden, sum(self.sizes))

    def _scores(self, head: nn.Module, states: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        scores: Tensor = head(states, lengths)
        return scores.split(self.sizes, dim=-1)

    def loss(
        self, head: nn.Module, states: Tensor, lengths: Tensor, examples: Sequence[Example]
    ) -> Tensor:
        targets = torch.tensor([example.target for example in examples], device=states.device).T
        parts = zip(self._scores(head, states, lengths), targets, strict=True)
        return torch.stack([F.cross_entropy(scores, target) for scores, target in parts]).sum()

    def predictions(
        self, head: nn.Module, states: Tensor, lengths: Tensor, examples: Sequence[Example]
    ) -> list[Any]:
        best = [scores.argmax(dim=-1) for scores in self._scores(head, states, lengths)]
        return [tuple(row) for row in torch.stack(best, dim=1).tolist()]

    def counts(self, examples: Sequence[Example], answers: Sequence[Any]) -> Counts:
        hits = [e.target == answer for e, answer in zip(examples, answers, strict=True)]
        return {"accuracy": Ratio(np.array(hits, dtype=np.float64), np.ones(len(hits)))}


class Transcription(Downstream):
    """PR, ASR and SF: connectionist temporal classification, greedy decoding."""

    def __init__(self, task: Task, fold: Fold, hop: int = 320) -> None:
        super().__init__(task, fold, hop)
        if task.vocabulary == "slots":
            self.vocabulary = vocabulary.slot_vocabulary(fold.labels[0])
        elif task.vocabulary == "phones":
            self.vocabulary = vocabulary.phone_vocabulary()
        else:
            self.vocabulary = vocabulary.letter_vocabulary()

    def build(self, states: int, width: int) -> nn.Module:
        task, outputs = self.task, len(self.vocabulary)
        if not task.recurrent:
            return FrameHead(states, width, task.hidden, outputs)
        return RecurrentHead(
            states, width, task.hidden, task.recurrent, task.recurrent_layers, outputs,
            task.dropout, task.spec_augment,
        )  # fmt: skip

    def loss(
        self, head: nn.Module, states: Tensor, lengths: Tensor, examples: Sequence[Example]
    ) -> Tensor:
        scores = F.log_softmax(head(states, lengths).float(), dim=-1).transpose(0, 1)
        targets = [self.vocabulary.encode(example.target) for example in examples]
        sizes = torch.tensor([len(target) for target in targets])
        flat = torch.tensor([symbol for target in targets for symbol in target])
        blank = self.vocabulary.blank
        return F.ctc_loss(scores, flat, lengths, sizes, blank=blank, zero_infinity=True)

    def predictions(
        self, head: nn.Module, states: Tensor, lengths: Tensor, examples: Sequence[Example]
    ) -> list[Any]:
        best = head(states, lengths).argmax(dim=-1).tolist()
        return [
            self.vocabulary.decode(path[: int(length)])
            for path, length in zip(best, lengths, strict=True)
        ]

    def counts(self, examples: Sequence[Example], answers: Sequence[Any]) -> Counts:
        targets = [example.target for example in examples]
        if self.task.vocabulary == "phones":
            return {"per": _edits(targets, answers)}
        if self.task.vocabulary == "slots":
            return _slots(
                [slots.slot_text(t) for t in targets],
                [slots.slot_text(a) for a in answers],
            )
        references = [vocabulary.words_of(target) for target in targets]
        hypotheses = [vocabulary.words_of(answer) for answer in answers]
        return {
            "wer": _edits(references, hypotheses),
            "cer": _edits(
                *([" ".join(words) for words in part] for part in (references, hypotheses))
            ),
        }


def _edits(references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]]) -> Ratio:
    errors, lengths = metrics.edit_counts(references, hypotheses)
    return Ratio(errors.astype(np.float64), lengths.astype(np.float64))


def _slots(references: Sequence[str], hypotheses: Sequence[str]) -> Counts:
    pairs = list(zip(references, hypotheses, strict=True))
    values = np.array([slots.slot_value_counts(*pair) for pair in pairs], dtype=np.float64)
    types = np.array([slots.slot_type_score(*pair) for pair in pairs])
    return {
        "slot_f1": Ratio(types, np.ones(len(pairs))),
        "slot_cer": Ratio(values[:, 0], values[:, 1]),
    }
