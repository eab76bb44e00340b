"""How the processes of one job start: their memory, their threads, one process for each GPU."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from skill.training.signals import received, signals

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_ALL, _OLD = 2**31 - 1, 2**25  # bytes; glibc before 2.35 takes no higher threshold of mapping


def keep_freed_memory() -> None:
    """Large tensors' memory stays with the process from one use to the next, where glibc allows it.

    By default it goes back to the system each time and comes again zeroed, page by page, which took
    a tenth of a training step on a CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _ALL) or mallopt(_M_MMAP_THRESHOLD, _OLD)
        mallopt(_M_TRIM_THRESHOLD, _ALL)


def set_threads(number: int) -> None:
    """Let torch and its libraries, imported later or by a child, use so many threads."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(number)


def run_processes(arguments: Sequence[str], number: int, threads: int | None) -> int:
    """`python -m skill ARGUMENTS` in `number` processes, as `torchrun` starts them; the exit code.

    Threads are divided among them. Where one fails, the others are told to end, and its code is
    returned. A signal to this process reaches each of them once.
    """
    set_threads(max(1, (threads or os.cpu_count() or 1) // number))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(number)}
    command = [sys.executable, "-m", "skill", *arguments]
    with signals():
        children = [
            subprocess.Popen(
                command, env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            )
            for rank in range(number)
        ]
        stop_signal, failed = 0, 0
        while any(child.poll() is None for child in children):
            codes = [child.returncode for child in children if child.returncode]
            failed = failed or (codes[0] if codes else 0)
            if not stop_signal and (stop_signal := received() or (signal.SIGTERM if failed else 0)):
                for child in children:
                    child.send_signal(stop_signal)
            time.sleep(0.1)
        codes = [child.returncode for child in children if child.returncode]
        code = failed or (codes[0] if codes else 0)
        return 128 + received() if received() else 128 - code if code < 0 else code
