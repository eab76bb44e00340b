"""Train, dev and test by a hash of what must not cross them: the same everywhere, never random.

By text, for recognition: a sentence is in one split only, and every speaker is in all of them.
By speaker, for tasks that must work on unseen voices: a voice is in one split only.
"""

from collections.abc import Iterable

from skill.utils.hashing import stable_hash

_EIGHTHS = 8


def by_text(key: str) -> str:
    """The split of a sentence: 80 % train, 10 % dev, 10 % test."""
    return ("dev", "test", *["train"] * 8)[stable_hash(key) % 10]


def by_speaker(speakers: Iterable[str]) -> dict[str, str]:
    """The split of every speaker, in the order of their hashes.

    An eighth of them, at least one, is dev, another eighth test, the others train.
    """
    ranked = sorted(set(speakers), key=lambda speaker: (stable_hash(speaker), speaker))
    share = max(1, round(len(ranked) / _EIGHTHS))
    return {
        speaker: "dev" if rank < share else "test" if rank < 2 * share else "train"
        for rank, speaker in enumerate(ranked)
    }
