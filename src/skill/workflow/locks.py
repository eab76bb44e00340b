"""A workflow run that was killed must not stop the next one: its lock, and jobs it left behind.

Snakemake locks the working directory while it runs and leaves the lock there when it is killed. A
run notes its process before it takes the lock, so that the next one can tell dead from alive.
Jobs watch the run that started them and end themselves, state saved, when it is gone.
"""

import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from skill.utils.errors import SkillError
from skill.utils.files import read_json, write_json
from skill.workflow.launch import CLAIM

WATCHED = "SKILL_RUN"
_NOTES = Path(".snakemake/runs")
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
    """Note, before it takes a lock, that this process runs the workflow of the working directory.

    Releases the lock of a run that was killed, and forgets its note.
    """
    release_stale_lock()
    pid = os.getpid()
    write_json(_NOTES / f"{pid}.json", {"host": platform.node(), "started": started(pid)})


def release_stale_lock() -> bool:
    """Remove the working directory's locks if all runs that noted themselves are dead.

    A run on another machine cannot be seen from here and counts as alive.
    """
    locks = list(_LOCKS.glob("*.lock"))  # first: who holds one of these has noted itself before
    notes = list(_NOTES.glob("*.json"))
    dead = [path for path in notes if _is_dead(path)]
    stale = locks if notes and len(dead) == len(notes) else []
    for path in [*stale, *dead]:
        path.unlink(missing_ok=True)
    return bool(stale)


def _is_dead(path: Path) -> bool:
    try:
        note = read_json(path)
    except SkillError:  # another run has just forgotten it
        return True
    return note["host"] == platform.node() and started(int(path.stem)) != note["started"]


def started(pid: int) -> str | None:
    """When a process began, in the system's words; with its number this names it for good.

    None: there is no such process, or it has ended and nobody has asked how.
    """
    if not Path("/proc/self/stat").exists():  # macOS
        command = ["ps", "-o", "lstart=", "-p", str(pid)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout or None
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
