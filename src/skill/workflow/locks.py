"""A workflow run that was killed must not stop the next one: its lock, and jobs it left behind.

Snakemake locks the working directory while it runs and leaves the lock there when it is killed. A
run notes itself before it takes that lock and holds a lock of the system on its note, which ends
with the process however that ends: so the next run, on whichever machine, can tell dead from alive.
Jobs watch the run that started them and end themselves, state saved, when it is gone.
"""

import atexit
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from skill.utils.errors import SkillError
from skill.utils.files import read_json, write_json
from skill.workflow.gpus import CLAIM

RUN = "SKILL_RUN"  # for jobs: process and start time of the run
_NOTES = Path(".snakemake/runs")
_LOCKS = Path(".snakemake/locks")
_held: list[FileLock] = []  # until this process ends
_SCRATCH_SECONDS = 60.0  # a job that was told to end saves its state first


def prepare(checkout: Path, here: bool) -> None:
    """Jobs of this run use this checkout's code and this Python, and end when the run is gone.

    Those that the run starts `here`, on this machine, and not on a cluster's, share its GPUs.

    Raises:
        SkillError: Python cannot be told of the checkout's folder.
    """
    source = str(checkout / "src")
    if os.pathsep in source:
        raise SkillError(
            f"{checkout}: a folder with {os.pathsep!r} in its path would run other code than its "
            "own (PYTHONPATH separates folders by it): move the checkout"
        )
    os.environ["PYTHONPATH"] = source
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    os.environ[RUN] = f"{os.getpid()} {psutil.Process().create_time():.2f}"
    os.environ.pop(CLAIM, None)
    if here:
        os.environ[CLAIM] = "1"


def register_run() -> None:
    """Note, before it takes a lock, that this process runs the workflow of the working directory.

    Releases the lock of a run that was killed, and forgets its note. The run ends with the `dvc`
    that started it.
    """
    release_stale_lock()
    if others := _live():
        _correct_advice(others)
    name = f"{platform.node()}-{os.getpid()}"
    _NOTES.mkdir(parents=True, exist_ok=True)
    _held.append(FileLock(_NOTES / f"{name}.lock", timeout=0))
    _held[-1].acquire()
    note = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M")}
    write_json(_NOTES / f"{name}.json", note)
    atexit.register(_forget, _NOTES / f"{name}.json")
    if "DVC_STAGE" in os.environ:
        for ancestor in psutil.Process().parents():
            if any(Path(word).name == "dvc" for word in ancestor.cmdline()[:3]):
                _watch(ancestor.pid, ancestor.create_time())


def release_stale_lock() -> bool:
    """Remove the working directory's locks if all runs that noted themselves are dead."""
    locks = list(_LOCKS.glob("*.lock"))  # first: who holds one of these has noted itself before
    notes = list(_NOTES.glob("*.json"))
    dead = [note for note in notes if not _is_held(note)]
    stale = locks if notes and len(dead) == len(notes) else []
    for path in stale:
        path.unlink(missing_ok=True)
    for note in dead:
        _forget(note)
    return bool(stale)


def _is_held(note: Path) -> bool:
    """Whether the run of a note is alive: it holds the lock beside it."""
    try:
        FileLock(note.with_suffix(".lock"), timeout=0).acquire().lock.release()
    except Timeout:
        return True
    return False


def _forget(note: Path) -> None:
    note.unlink(missing_ok=True)
    note.with_suffix(".lock").unlink(missing_ok=True)


def _live() -> list[str]:
    """The other runs that are active here, in words."""
    runs = []
    for path in sorted(_NOTES.glob("*.json")):
        try:
            note = read_json(path)
            runs.append(f"process {note['pid']} on {note['host']} since {note['since']}")
        except (SkillError, KeyError, TypeError):  # another run has just ended, or an old note
            continue
    return runs


def _correct_advice(runs: list[str]) -> None:
    """Where the folder is locked, name the run that is active; Snakemake would advise to unlock."""
    from snakemake import exceptions

    def say(self: exceptions.LockException) -> None:
        exceptions.WorkflowError.__init__(
            self,
            f"a run is active in this folder: {', '.join(runs)}. Wait until it has ended, or end "
            "it (Ctrl-C, or `kill` and its process), then start again.",
        )

    exceptions.LockException.__init__ = say


def exit_with_parent() -> None:
    """End with the run that started this job, or with the parent of several processes of a job.

    A run that is gone already ends the job at once.
    """
    if "LOCAL_RANK" in os.environ:
        if (parent := psutil.Process().parent()) is not None:
            _watch(parent.pid, parent.create_time())
    elif RUN in os.environ:
        pid, started = os.environ[RUN].split()
        _watch(int(pid), float(started))


def _is_alive(pid: int, started: float) -> bool:
    """Whether process `pid` is the one that began at `started`, in seconds, and has not ended."""
    try:
        process = psutil.Process(pid)
        # the system's clock may have been set since, and with it what start times count from
        same = abs(process.create_time() - started) < 5
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _watch(pid: int, started: float, seconds: float = 1.0) -> None:
    """Send SIGTERM to this process once the process `pid` is gone; look every few seconds."""
    if not _is_alive(pid, started):
        print(f"the run of process {pid} has ended, and this job with it", file=sys.stderr)
        sys.exit(128 + signal.SIGTERM)

    def watch() -> None:
        while _is_alive(pid, started):
            time.sleep(seconds)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def scratch_of_one_job(folder: Path, seconds: float = _SCRATCH_SECONDS) -> Iterator[None]:
    """Hold a folder of resume files; a job that is about to end gets some seconds to leave it.

    Raises:
        SkillError: another job works in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{folder}: in use by another job, waiting for its end", file=sys.stderr, flush=True)
        try:
            lock.acquire(timeout=seconds)
        except Timeout:
            raise SkillError(
                f"{folder}: another job works in this folder; wait until it has ended, or end it"
            ) from None
    try:
        yield
    finally:
        lock.release()
