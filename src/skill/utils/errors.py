"""The one error that users see: bad input, said in words."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike

_REMEDIES = {
    errno.ENOSPC: "the disk is full: make room and run the same command again",
    errno.EDQUOT: "the disk quota is used up: make room and run the same command again",
    errno.EROFS: "the file system is read-only: give a folder that can be written to",
    errno.EACCES: "permission denied: check who owns the file and its folder",
    errno.EPERM: "operation not permitted: check who owns the file and its folder",
    errno.ENOENT: "there is no such file: check the path",
    errno.EISDIR: "is a folder: give a file",
    errno.ENOTDIR: "a part of the path is a file: give a folder",
    errno.EMFILE: "too many open files: raise the limit (`ulimit -n`)",
    errno.EIO: "the disk reports an error: copy the file from elsewhere",
    errno.ENAMETOOLONG: "the name is too long",
}


class SkillError(Exception):
    """Bad input. The message names the file, key or utterance and says what is wrong with it."""


@contextmanager
def known_content(*paths: str | PathLike[str]) -> Iterator[None]:
    """Around what takes values out of files of known keys or columns: others are bad input.

    Raises:
        SkillError: a key, a column or a value is missing or of another kind; the files are named.
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        names = ", ".join(map(str, paths[:3])) + (" and others" if len(paths) > 3 else "")
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise SkillError(f"{names}: not the content that is expected: {what[:300]}") from error


def describe(error: OSError) -> str:
    """One sentence for what the system refused: the path, what happened, and the remedy."""
    text = _REMEDIES.get(error.errno or 0, error.strerror or str(error))
    path = error.filename2 or error.filename
    return f"{path}: {text}" if path else text
