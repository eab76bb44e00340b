"""What a task is trained and tested on: examples, in folds, with official or hashed splits."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skill.superb.metrics import Unscored
from skill.utils.hashing import stable_hash

Waveform = NDArray[np.float32]


@dataclass(frozen=True)
class Crops:
    """Excerpts of `samples`: each time one of `cached` seeded ones, or (0) a new one."""

    samples: int
    cached: int


@dataclass(frozen=True)
class Example:
    """One item: `read` gives its samples [S] at 16 kHz, `target` is what the head has to say."""

    id: str
    samples: int
    target: Any
    cluster: Hashable  # items of one cluster (speaker, session) are not independent
    read: Callable[[], Waveform] = field(repr=False, compare=False)
    crops: Crops | None = None  # of what training hears


class Trial(NamedTuple):
    """Do two utterances have the same speaker? `cluster` is the first one's speaker."""

    same: bool
    first: str
    second: str
    cluster: Hashable


@dataclass(frozen=True)
class Fold:
    """Training, development and test examples; `labels` names the classes where there are any."""

    train: list[Example]
    dev: list[Example]
    test: list[Example]
    labels: tuple[tuple[str, ...], ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)
    trials: dict[str, list[Trial]] = field(default_factory=dict)  # of dev and test (ASV)
    synthetic: bool = False


@dataclass(frozen=True)
class Search:
    """Query by example: `queries` of dev and test, each looked for in all `documents`.

    A query's target is one name, a document's targets the names that match it. `unscored`, by
    split: the rest of a table of which only a part is scored.
    """

    documents: list[Example]
    queries: dict[str, list[Example]]
    unscored: dict[str, Unscored] = field(default_factory=dict)
    synthetic: bool = False


def hashed(text: str, seed: int = 0) -> int:
    """A number that depends on `text` alone, the same everywhere: for splits and samples."""
    return stable_hash(f"{seed}:{text}")


def limit_seconds(examples: Iterable[Example], seconds: float, seed: int = 0) -> list[Example]:
    """At most `seconds` of audio, chosen by the hash of the id, in the given order."""
    examples = list(examples)
    selected: set[str] = set()
    used = 0.0
    for example in sorted(examples, key=lambda e: hashed(e.id, seed)):
        used += example.samples / 16000
        if used > seconds and selected:
            break
        selected.add(example.id)
    return [example for example in examples if example.id in selected]


def group_folds(groups: Iterable[str], folds: int) -> list[set[str]]:
    """`groups` dealt into `folds` sets in the order of their hashes; sizes differ by at most 1."""
    ranked = sorted(set(groups), key=hashed)
    return [set(ranked[number::folds]) for number in range(folds)]


def with_crops(examples: Iterable[Example], seconds: float, cached: int) -> list[Example]:
    """Examples of which training hears excerpts of `seconds` where they are longer."""
    limit = round(seconds * 16000)
    return [
        replace(example, crops=Crops(limit, cached)) if example.samples > limit else example
        for example in examples
    ]


def excerpt(example: Example, start: int) -> Example:
    """The excerpt of an example with crops that begins at sample `start`."""
    assert example.crops is not None
    length = example.crops.samples
    return replace(
        example, id=f"{example.id}@{start}", samples=length, crops=None,
        read=_Excerpt(example.read, start, length),
    )  # fmt: skip


def seeded_excerpt(example: Example, number: int) -> Example:
    """An excerpt of an example with crops that follows from its id and `number` alone."""
    assert example.crops is not None
    places = example.samples - example.crops.samples + 1
    return excerpt(example, hashed(f"{example.id}#{number}") % places)


def cacheable(example: Example) -> list[Example]:
    """What training hears of an example again and again: itself, or its seeded excerpts."""
    if example.crops is None:
        return [example]
    return [seeded_excerpt(example, number) for number in range(example.crops.cached)]


def draw(example: Example, generator: np.random.Generator) -> Example:
    """What one step of training hears of an example: itself, or one excerpt."""
    if example.crops is None:
        return example
    if example.crops.cached:
        return seeded_excerpt(example, int(generator.integers(example.crops.cached)))
    return excerpt(example, int(generator.integers(example.samples - example.crops.samples + 1)))


@dataclass(frozen=True)
class _Excerpt:
    read: Callable[[], Waveform]
    start: int
    length: int

    def __call__(self) -> Waveform:
        return self.read()[self.start : self.start + self.length]


def by_length(examples: Iterable[Example], seconds: float) -> Iterator[list[Example]]:
    """Groups of similar length, longest first, each padded to at most `seconds` (or one alone)."""
    group: list[Example] = []
    for example in sorted(examples, key=lambda example: -example.samples):
        if group and (len(group) + 1) * group[0].samples > seconds * 16000:
            yield group
            group = []
        group.append(example)
    if group:
        yield group


def batch_order(
    order: str, examples: Sequence[Example], batch: int, epoch: int, seed: int
) -> list[list[int]]:
    """Index batches of one epoch, a pure function of (seed, epoch).

    shuffled: a permutation, cut. buckets (ASR): by length, each full bucket in two halves, the last
    one whole (a single item is dropped where there are others), order shuffled. windows (PR, SF):
    by target length, a window from each item on, in shuffled order, halved where its first item
    exceeds 300,000 samples. balanced (KS): drawn with replacement, every class as often; an
    incomplete batch is dropped.
    """
    generator = np.random.default_rng([seed, epoch])
    count = len(examples)
    if order == "shuffled":
        return _cut(generator.permutation(count).tolist(), batch)
    if order == "buckets":
        longest = sorted(range(count), key=lambda i: (-examples[i].samples, examples[i].id))
        buckets = [part for items in _cut(longest, batch) for part in _halves(items, batch)]
        if len(buckets) > 1 and len(longest) % batch == 1 < batch:
            buckets.pop()
        return [buckets[i] for i in generator.permutation(len(buckets))]
    if order == "windows":
        longest = sorted(range(count), key=lambda i: (-len(examples[i].target), examples[i].id))
        windows = []
        for first in generator.permutation(count):
            start = max(0, min(int(first), count - batch))
            window = longest[start : start + batch]
            if examples[window[0]].samples > 300_000:
                window = window[: max(1, len(window) // 2)]
            windows.append(window)
        return windows
    if order == "balanced":
        sizes = Counter(example.target for example in examples)
        weight = np.array([1.0 / sizes[example.target] for example in examples])
        sample = generator.choice(count, size=count, p=weight / weight.sum()).tolist()
        return [part for part in _cut(sample, batch) if len(part) == min(batch, count)]
    raise ValueError(f"unknown order {order!r}")


def _halves(items: list[int], size: int) -> list[list[int]]:
    """Two halves of a full bucket, the smaller one first; what is not full stays whole."""
    if len(items) == size > 1:
        return [items[: size // 2], items[size // 2 :]]
    return [items]


def _cut(items: list[int], size: int) -> list[list[int]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
