"""`python -m skill` and the console script `skill`: the commands of `skill.cli`."""

import os
import signal
import sys


def main() -> None:
    """Run the command of this process and leave with its exit code."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Ctrl-C while modules are imported: quietly, `skill.cli.main` takes over from there.
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from skill.cli import main as run

    sys.exit(run())


if __name__ == "__main__":
    main()
