"""Which GPUs are a job's own, on a machine where several jobs run beside each other.

Snakemake counts GPUs and does not say which. So jobs of a run on this machine take them by lock
files. On a cluster the scheduler has given each job its own: nothing is taken there.
"""

import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

from filelock import FileLock, Timeout

from skill.utils.errors import SkillError

CLAIM = "SKILL_CLAIM_GPUS"  # set for jobs of a run on this machine


def devices() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    return answer.stdout.split() if answer.returncode == 0 else []


@contextmanager
def claim_gpus(number: int, seconds: float = 1.0) -> Iterator[None]:
    """See only `number` GPUs, which no other job on this machine has; wait until they are free.

    Raises:
        SkillError: the machine has fewer, or there is no folder for the locks.
    """
    present = devices() if number and os.environ.get(CLAIM) else []
    if not present:
        yield
        return
    if number > len(present):
        raise SkillError(f"--gpus {number}: {len(present)} can be used here")
    folder = _private_folder()
    waits = False
    while True:
        with ExitStack() as locks:
            free = (name for name in present if _take(folder / name.replace("/", "-"), locks))
            claimed = list(islice(free, number))
            if len(claimed) == number:
                os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(claimed)
                yield
                return
        if not waits:
            print(f"waiting for {number} of the GPUs {', '.join(present)}", file=sys.stderr)
            waits = True
        time.sleep(seconds)


def _private_folder() -> Path:
    """A folder of this user alone, on this machine: nobody else can hold or plant a lock in it.

    Raises:
        SkillError: neither the folder for temporary files nor the user's cache allows one.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    places = (
        Path(tempfile.gettempdir(), f"skill-gpus-{os.getuid()}"),
        cache / "skill" / f"gpus-{platform.node()}",  # where a stranger has taken the first name
    )
    for folder in places:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = folder.lstat()
        except OSError:
            continue
        private = not stat.S_IMODE(status.st_mode) & 0o077 and status.st_uid == os.getuid()
        if stat.S_ISDIR(status.st_mode) and private:
            return folder
    raise SkillError(
        f"{places[0]}: is not a folder of yours alone (mode 700), and {places[1]} cannot be made; "
        "set TMPDIR to a folder of yours"
    )


def _take(path: Path, locks: ExitStack) -> bool:
    try:
        locks.enter_context(FileLock(path, timeout=0))
    except Timeout:
        return False
    return True
