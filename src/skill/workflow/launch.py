"""The processes of one job: memory, which GPUs are its own, `torchrun`, and one signal to stop.

Snakemake counts GPUs and does not say which. So jobs that run beside each other on one machine take
them by lock files. On a cluster the scheduler has given each job its own: nothing is taken there.

A job that is told to stop hears of it several times: Slurm signals every process, `torchrun` its
own, and the run that has ended does so, too. Trainings save their state on the first signal.
`told_once` lets that one through and no other.
"""

import _thread
import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

from skill.utils.errors import SkillError

CLAIM = "SKILL_CLAIM_GPUS"  # set for jobs of a run on this machine
TRAININGS = ("pretrain", "stage1", "stage2")
SHARED = ("stage1", "stage2")  # by several processes
ON_GPU = (*SHARED, "activations", "regression", "superb", "size")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_ALL, _OLD = 2**31 - 1, 2**25  # bytes; glibc before 2.35 takes no higher threshold of mapping


def keep_memory() -> None:
    """Large tensors' memory stays with the process from one use to the next, where glibc allows it.

    By default it goes back to the system each time and comes again zeroed, page by page, which took
    a tenth of a training step on a CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _ALL) or mallopt(_M_MMAP_THRESHOLD, _OLD)
        mallopt(_M_TRIM_THRESHOLD, _ALL)


def torchrun(argv: Sequence[str], processes: int, threads: int | None) -> int:
    """Run the verb of `argv` once per GPU, with its threads divided; the first failure's code."""
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main

    set_threads(max(1, (threads or os.cpu_count() or 1) // processes))
    try:
        main(["--standalone", "--nproc-per-node", str(processes), "-m", "skill", *argv])
    except SignalException as error:
        return 128 + int(error.sigval)
    except ChildFailedError as error:
        return max(1, int(error.get_first_failure()[1].exitcode))
    return 0


def set_threads(number: int) -> None:
    """Let torch and its libraries, imported later or by a child, use so many threads."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(number)


@contextmanager
def told_once(signals: set[signal.Signals]) -> Iterator[threading.Event]:
    """The first of `signals` reaches the main thread's handler, no other does.

    Of several processes it is enough that one is told (`skill.training.checkpoints.Stop.agreed`).
    The event is set by the first signal. Children inherit that the signals are blocked."""
    told, over = threading.Event(), threading.Event()

    def listen() -> None:
        while True:
            number = signal.Signals(signal.sigwait(signals))
            if over.is_set():
                return
            if told.is_set():
                continue
            told.set()
            _thread.interrupt_main(number)

    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield told
    finally:
        over.set()
        signal.pthread_kill(listener.ident or 0, min(signals))
        listener.join()
        while told.is_set() and signal.sigpending() & signals:
            signal.sigwait(signals)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def devices() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    said = subprocess.run(query, capture_output=True, text=True, check=False)
    return said.stdout.split() if said.returncode == 0 else []


@contextmanager
def claimed(number: int, seconds: float = 1.0) -> Iterator[None]:
    """See only `number` GPUs, which no other job on this machine has; wait until they are free.

    Raises:
        SkillError: the machine has fewer.
    """
    present = devices() if number and os.environ.get(CLAIM) else []
    if not present:
        yield
        return
    if number > len(present):
        raise SkillError(f"--gpus {number}: {len(present)} can be used here")
    folder = Path(tempfile.gettempdir(), f"skill-gpus-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    waits = False
    while True:
        with ExitStack() as locks:
            free = (name for name in present if _take(folder / name.replace("/", "-"), locks))
            mine = list(islice(free, number))
            if len(mine) == number:
                os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
                yield
                return
        if not waits:
            print(f"waiting for {number} of the GPUs {', '.join(present)}", file=sys.stderr)
            waits = True
        time.sleep(seconds)


def _take(path: Path, locks: ExitStack) -> bool:
    file = locks.enter_context(path.open("w"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
