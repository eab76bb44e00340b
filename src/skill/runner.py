"""A workflow run that was killed must not stop the next one: its lock, and jobs it left behind.

Snakemake locks the working directory while it runs and leaves the lock there when it is killed. The
run's process is noted beside the lock, so that the next run can tell a dead one from one at work.
Jobs watch the run that started them and end themselves, state saved, when it is gone.
"""

import os
import platform
import signal
import sys
import threading
import time
from pathlib import Path

from skill.files import read_json, write_json
from skill.launch import CLAIM

WATCHED = "SKILL_RUN"
_NOTE = Path(".snakemake/holder.json")
_LOCKS = Path(".snakemake/locks")


def prepare(checkout: Path, here: bool) -> None:
    """Jobs of this run use this checkout's code and this Python, and end when the run is gone.

    Those that the run starts `here`, on this machine, and not on a cluster's, share its GPUs.
    """
    os.environ["PYTHONPATH"] = str(checkout / "src")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    os.environ[WATCHED] = str(os.getpid())
    os.environ.pop(CLAIM, None)
    if here:
        os.environ[CLAIM] = "1"


def hold() -> None:
    """Note that this process runs the workflow of the working directory."""
    pid = os.getpid()
    write_json(_NOTE, {"host": platform.node(), "pid": pid, "started": started(pid)})


def release_stale_lock() -> bool:
    """Remove the working directory's lock if the run that noted itself last is dead.

    A run on another machine cannot be seen from here: its lock stays. So does a lock that is newer
    than the note: of a run that has locked the folder and not yet noted itself.
    """
    locks = list(_LOCKS.glob("*.lock"))
    if not _NOTE.exists() or not locks:
        return False
    noted = _NOTE.stat().st_mtime_ns
    if any(lock.stat().st_mtime_ns > noted for lock in locks):
        return False
    note = read_json(_NOTE)
    alive = started(note["pid"]) == note["started"]
    if note["host"] != platform.node() or alive:
        return False
    for lock in locks:
        lock.unlink(missing_ok=True)
    return True


def started(pid: int) -> str | None:
    """When a process began, in the kernel's ticks: with its number this names it for good."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def end_with(pid: int, seconds: float = 1.0) -> None:
    """Send SIGTERM to this process once the process `pid` is gone; look every few seconds."""
    birth = started(pid)

    def watch() -> None:
        while started(pid) == birth:
            time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGTERM)

    if birth is not None:
        threading.Thread(target=watch, daemon=True).start()
