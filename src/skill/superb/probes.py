"""Two tasks of single states, without a trained featuriser and without a seed: phones and ABX.

phones: a linear probe on frames (`phone_probe`), per cent of frames of unheard sentences right.
abx: discrimination of triphones (`abx`), within and across speakers.
Each state is judged by itself; the one that is best on dev is the upstream's result on test, and
the values of all states stand in the result.

Legend: L states, T frames, D width, N frames of a split.
"""

from collections.abc import Hashable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from skill.config.tasks import Task
from skill.data.alignments import SILENCE, STEP, phone_labels
from skill.superb import abx
from skill.superb.counts import Counts, Ratio
from skill.superb.examples import Example, Fold
from skill.superb.feature_cache import FeatureCache
from skill.superb.phone_probe import PHONES, fit_probe
from skill.superb.result import (
    EvaluationResult,
    fold_sizes,
    item_rows,
    metric_with_interval,
    result_header,
)
from skill.superb.upstream import Upstream
from skill.utils.errors import SkillError

Items = list[tuple[str, Hashable]]
_NUMBERS = {name: number for number, name in enumerate(PHONES)}


def evaluate(upstream: Upstream, task: Task, fold: Fold, seed: int) -> EvaluationResult:
    """The result of `phones` or `abx` on the examples of `fold`."""
    features = FeatureCache(upstream, False, task.cache_gib * 2**30, task.batch_seconds)
    judge = _Phones if task.kind == "frames" else _Triphones
    judged = judge(features, task, fold, seed)
    low_is_good = task.kind != "frames"
    dev = [judged.value("dev", state) for state in range(upstream.states)]
    test = [judged.value("test", state) for state in range(upstream.states)]
    best = int(np.argmin(dev) if low_is_good else np.argmax(dev))
    items, counts = judged.counts(best)
    result = {
        **result_header(task, upstream, fold_sizes([fold]), fold.synthetic),
        "layer": best,
        "layers": [
            {"state": state, "dev": dev[state], "test": test[state]}
            for state in range(upstream.states)
        ],
        "metrics": {
            name: metric_with_interval(task, name, [counts[name]], items) for name in counts
        },
    }
    weight = torch.zeros(upstream.states)
    weight[best] = 1
    return EvaluationResult(result, item_rows(items, {0: counts}), {"layer": weight})


def states_of(
    features: FeatureCache, examples: Sequence[Example]
) -> Iterator[tuple[Example, Tensor, np.ndarray]]:
    """Each example with its states [L, T, D] and the samples that its frames are centred on [T]."""
    for example in examples:
        states, lengths = features.batch([example])
        frames = int(lengths[0])
        yield example, states[:, 0, :frames], features.upstream.centres(frames)


class _Phones:
    """Probes of all states, fitted on the training split."""

    def __init__(self, features: FeatureCache, task: Task, fold: Fold, seed: int) -> None:
        self.right: dict[str, list[list[int]]] = {"dev": [], "test": []}  # of each example, state
        self.frames: dict[str, list[int]] = {"dev": [], "test": []}
        self.fold = fold
        collected: list[Tensor] = []
        labels: list[Tensor] = []
        for example, states, centres in states_of(features, fold.train):
            numbers = torch.from_numpy(phone_labels(example.target.words, _NUMBERS, centres))
            collected.append(states[:, numbers >= 0].half().cpu())
            labels.append(numbers[numbers >= 0])
        train, truth = torch.cat(collected, 1), torch.cat(labels)
        probes = [fit_probe(state.float(), truth) for state in train]
        for split in self.right:
            for example, states, centres in states_of(features, getattr(fold, split)):
                numbers = torch.from_numpy(phone_labels(example.target.words, _NUMBERS, centres))
                kept = numbers >= 0
                answers = [
                    probe.predict(state[kept].float().cpu())
                    for probe, state in zip(probes, states, strict=True)
                ]
                self.right[split].append([int((a == numbers[kept]).sum()) for a in answers])
                self.frames[split].append(int(kept.sum()))

    def value(self, split: str, state: int) -> float:
        """Per cent of frames right."""
        right = sum(row[state] for row in self.right[split])
        return 100 * right / sum(self.frames[split])

    def counts(self, state: int) -> tuple[Items, Counts]:
        """Frames right and frames of every test utterance."""
        items: Items = [(example.id, example.cluster) for example in self.fold.test]
        right = np.array([row[state] for row in self.right["test"]], dtype=np.float64)
        return items, {
            "frame_accuracy": Ratio(right, np.array(self.frames["test"], dtype=np.float64))
        }


class _Triphones:
    """ABX errors of all states, within and across speakers."""

    def __init__(self, features: FeatureCache, task: Task, fold: Fold, seed: int) -> None:
        self.errors: dict[str, list[tuple[abx.Errors, abx.Errors]]] = {}
        for split in ("dev", "test"):
            instances = list(triphones(features, getattr(fold, split)))
            if not instances:
                raise SkillError(f"{task.name}: no {split} sentence has a phone between two phones")
            self.errors[split] = abx.abx_errors(instances, seed=seed)

    def value(self, split: str, state: int) -> float:
        """The error across speakers, in per cent."""
        return 100 * abx.abx_error(self.errors[split][state][1])

    def counts(self, state: int) -> tuple[Items, Counts]:
        """The weighted error of each pair of phones and speaker: their sum is the ABX error.

        A cell that is there in one of the two conditions only has weight 0 in the other.
        """
        within, across = self.errors["test"][state]
        keys = sorted(within.keys() | across.keys())
        items: Items = [(f"{a}-{b} {speaker}", speaker) for a, b, speaker in keys]
        counts: Counts = {}
        for name, errors in (("abx_within", within), ("abx_across", across)):
            weights = abx.cell_weights(errors)
            weight = np.array([weights.get(key, 0.0) for key in keys])
            error = np.array([errors.get(key, 0.0) for key in keys])
            counts[name] = Ratio(error * weight, weight)
        return items, counts


def triphones(features: FeatureCache, examples: Sequence[Example]) -> Iterator[abx.Triphone]:
    """Every phone between phones, with its neighbours and its speaker.

    An instance is cut from the start of the phone before to the end of the phone after, in half
    precision.
    """
    for example, states, centres in states_of(features, examples):
        spoken = [phone for word in example.target.words for phone in word.phones]
        for before, middle, after in zip(spoken, spoken[1:], spoken[2:], strict=False):
            if not {before.name, middle.name, after.name} <= _NUMBERS.keys() or SILENCE in (
                before.name, after.name,
            ):  # fmt: skip
                continue
            start, end = before.start * STEP, (after.start + after.frames) * STEP
            inside = np.flatnonzero((centres >= start) & (centres < end))
            if len(inside) > 1:
                cut = states[:, inside[0] : inside[-1] + 1].half().cpu()
                context = (before.name, after.name)
                yield abx.Triphone(cut, middle.name, context, str(example.cluster))
