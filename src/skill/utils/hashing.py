"""Numbers from strings, for choices that are the same everywhere and never random."""

from hashlib import sha256


def stable_hash(key: str) -> int:
    """The first 64 bits of the SHA-256 of `key`.

    Splits, samples and seeds of all results follow from it: changing it, or a key, changes them.
    """
    return int.from_bytes(sha256(key.encode()).digest()[:8], "big")
