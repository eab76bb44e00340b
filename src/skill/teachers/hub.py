"""Files of the model hub, in the cache that its own library keeps.

The library goes on where a connection broke off, gives up a server that sends nothing after some
tries, and keeps whole files (of half a file it keeps nothing for another process). Here a server
that sends too little is given up, too, and no message or log shows the password of an address.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from skill.utils.download import RetryPolicy
from skill.utils.errors import SkillError
from skill.utils.text import masked

if TYPE_CHECKING:
    import httpx2

POLICY = RetryPolicy()


def snapshot(where: str, name: str, revision: str, patterns: Sequence[str]) -> Path:
    """The folder with those files of the model `name` at a commit that match `patterns`.

    Args:
        where: the key that asks for it, for messages.

    Raises:
        SkillError: it is neither in the cache nor could it be fetched. Whole files are kept.
    """
    try:
        import httpx2
        from huggingface_hub import get_session, snapshot_download
        from huggingface_hub.errors import HFValidationError
    except ImportError as error:
        raise SkillError(
            f"{where}: models of the hub need {error.name}: pip install 'skill[export]'"
        ) from None
    for handler in logging.getLogger("huggingface_hub").handlers:
        handler.addFilter(_mask)
    hooks = get_session().event_hooks
    if _watch not in hooks["response"]:
        get_session().event_hooks = hooks | {"response": [*hooks["response"], _watch]}
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(patterns)))
    except (httpx2.HTTPError, HFValidationError, OSError) as error:
        raise SkillError(
            f"{where}: {name} at {revision} is neither cached nor could it be downloaded: "
            f"{masked(str(error) or type(error).__name__)}"
        ) from None


def _mask(record: logging.LogRecord) -> bool:
    record.msg, record.args = masked(record.getMessage()), ()
    return True


def _watch(response: "httpx2.Response") -> None:
    """Raise `ReadTimeout` while its content arrives, where that is slower than the policy says."""
    import httpx2

    class Watched(httpx2.SyncByteStream):
        def __init__(self, stream: httpx2.SyncByteStream) -> None:
            self.stream = stream

        def __iter__(self) -> Iterator[bytes]:
            since, received = time.monotonic(), 0
            for part in self.stream:
                received += len(part)
                seconds = time.monotonic() - since
                if seconds > POLICY.stall and received < seconds * POLICY.slowest:
                    slow = f"the server sends less than {POLICY.slowest:g} bytes a second"
                    raise httpx2.ReadTimeout(slow, request=response.request)
                yield part

        def close(self) -> None:
            self.stream.close()

    assert isinstance(response.stream, httpx2.SyncByteStream)
    response.stream = Watched(response.stream)
