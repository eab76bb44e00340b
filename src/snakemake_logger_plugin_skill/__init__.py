"""What a run prints (`logger: skill` in profiles/default): a line for each job that ends or stops.

A line says how far the whole run is, what the job made, and how long the rest will take. A dry run
prints what Snakemake prints by itself; so does any run with SKILL_OUTPUT=snakemake.
"""

import os
import sys
import time
from collections import defaultdict
from logging import WARNING, Handler, LogRecord
from typing import Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

# Said already by the line of the job that failed, with its whole command.
_JOB_EXCEPTIONS = {"RuleException", "CalledProcessError", "CalledProcessErrorList"}
_ENDED = "At least one job did not complete successfully"
_SPOKEN = ("Nothing to be done", "Congratulations", "Unlocked", "Will exit after", "Trying to")


class Progress:
    """How far a run is: times of its jobs by rule."""

    def __init__(self, counts: dict[str, int]) -> None:
        self.left = {rule: number for rule, number in counts.items() if rule != "total"}
        self.total, self.done = sum(self.left.values()), 0
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.began = time.monotonic()

    def finish(self, rule: str, seconds: float) -> None:
        """Count a job of a rule as done."""
        self.done += 1
        self.left[rule] = max(0, self.left.get(rule, 1) - 1)
        self.seconds[rule].append(seconds)

    def seconds_left(self) -> float:
        """As if the jobs left took what others of their rule took, as many at a time as so far."""
        every = [seconds for rule in self.seconds.values() for seconds in rule]
        if not every:
            return 0.0
        mean = sum(every) / len(every)
        work = 0.0
        for rule, number in self.left.items():
            known = self.seconds.get(rule)
            work += number * (sum(known) / len(known) if known else mean)
        at_once = max(1.0, sum(every) / max(1e-3, time.monotonic() - self.began))
        return work / at_once


class LogHandler(LogHandlerBase):
    """Snakemake's messages as lines of this project."""

    def __post_init__(self) -> None:
        self.progress = Progress({})
        self.jobs: dict[int, tuple[str, str, float]] = {}  # rule, name, start
        self.stopping = False
        self.plain: Handler | None = None
        if self.common_settings.dryrun or os.environ.get("SKILL_OUTPUT") == "snakemake":
            self.plain = self._snakemakes()

    def _snakemakes(self) -> Handler:
        """The handler that Snakemake would have without this one."""
        from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter

        s: Any = self.common_settings
        stream = sys.stdout if s.stdout else sys.stderr
        handler = ColorizingTextHandler(nocolor=s.nocolor, stream=stream)
        handler.addFilter(
            DefaultFilter(s.quiet, s.debug_dag, s.verbose, s.dryrun, s.printshellcmds)
        )
        handler.setFormatter(DefaultFormatter(s.quiet, s.show_failed_logs))
        return handler

    @property
    def writes_to_stream(self) -> bool:
        return True

    @property
    def writes_to_file(self) -> bool:
        return False

    @property
    def has_filter(self) -> bool:
        return True

    @property
    def has_formatter(self) -> bool:
        return True

    @property
    def needs_rulegraph(self) -> bool:
        return False

    def emit(self, record: LogRecord) -> None:
        if self.plain is not None:
            self.plain.handle(record)
        elif line := self.line(record.__dict__, record.levelno):
            print(line, file=sys.stderr, flush=True)

    def line(self, record: dict[str, Any], level: int) -> str | None:
        """What to print for a message, if anything."""
        event, message = record.get("event"), str(record["msg"] or "")
        if event == LogEvent.RUN_INFO:
            self.progress = Progress(record["stats"])
            return f"{self.progress.total} jobs to do"
        if event == LogEvent.JOB_INFO:
            name = _name([str(path) for path in record["output"]]) or record["rule_name"]
            self.jobs[record["jobid"]] = (record["rule_name"], name, time.monotonic())
            return None
        if event == LogEvent.JOB_FINISHED:
            return self._finished(record["job_id"])
        if event == LogEvent.JOB_ERROR:
            _, name, _ = self.jobs.get(record["jobid"], ("", record["rule_name"], 0.0))
            state = "stopped" if self.stopping else "failed"
            logs = "".join(f", see {path}" for path in record["log"])
            return f"{self._counted()} {name}: {state}{logs}"
        if event == LogEvent.ERROR:
            known = record.get("exception") in _JOB_EXCEPTIONS or _ENDED in message
            return None if known else message
        if event is not None:
            return None
        if message.startswith("Terminating processes"):
            self.stopping = True
            return "stopping: jobs that can go on later save their state"
        if message.startswith("Exiting because a job"):
            left = self.progress.total - self.progress.done
            return f"{left} of {self.progress.total} jobs are left; the same command goes on"
        return message if level >= WARNING or message.startswith(_SPOKEN) else None

    def _finished(self, number: int) -> str:
        rule, name, start = self.jobs.pop(number, ("", "", 0.0))
        seconds = time.monotonic() - start
        self.progress.finish(rule, seconds)
        if name == rule:  # a target, which makes nothing: all that it asks for is there
            seconds = time.monotonic() - self.progress.began
        left = self.progress.seconds_left()
        ahead = (
            f", about {_duration(left)} left" if self.progress.done < self.progress.total else ""
        )
        return f"{self._counted()} {name}: done in {_duration(seconds)}{ahead}"

    def _counted(self) -> str:
        total = str(self.progress.total)
        return f"[{self.progress.done:>{len(total)}}/{total}]"


def _name(outputs: list[str]) -> str:
    """Of a job: its first output, without the folder and the ending that all have."""
    return outputs[0].removeprefix("results/").rpartition(".")[0] if outputs else ""


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
