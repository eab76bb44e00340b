"""What a corpus is made without: counted and named, and too much of it is an error."""

import sys
from collections.abc import Sequence

from skill.utils.errors import SkillError

_SHARE = 0.01
_EXAMPLES = 5


def report(corpus: str, reason: str, names: Sequence[str]) -> None:
    """Say how many recordings, or other files, are left out for `reason`, with five examples."""
    if names:
        examples = ", ".join(names[:_EXAMPLES]) + (", …" if len(names) > _EXAMPLES else "")
        print(f"corpora {corpus}: left out, {reason}: {len(names)} ({examples})",
              file=sys.stderr, flush=True)  # fmt: skip


def too_many(count: int, total: int) -> bool:
    """Whether `count` of `total` are more than one and more than 1 %, or all."""
    return count > max(1, _SHARE * total) or 0 < count == total


def report_unreadable(corpus: str, problems: Sequence[str], total: int) -> None:
    """Say which of `total` recordings cannot be read.

    Raises:
        SkillError: they are more than one and more than 1 %, or all.
    """
    report(corpus, "unreadable", problems)
    if too_many(len(problems), total):
        raise SkillError(
            f"corpus {corpus}: {len(problems)} of {total} recordings cannot be read "
            f"(first: {problems[0]})"
        )
