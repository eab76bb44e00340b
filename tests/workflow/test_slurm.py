"""A student on a real Slurm of one node, through `profiles/slurm`; jobs that were stopped go on.

The node has no GPU, and Slurm counts none here: the programs that ask it for GPUs are wrapped, note
the request and leave it out. What is asked of Slurm and what the job gets is as on a real cluster.

Munge and Slurm come from Debian packages, unpacked below a temporary folder and started as the user
who runs the tests. Where they cannot be had or do not start, the test is skipped and says why.
"""

import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import trainings, wait_for

from skill.data.corpora import debian
from skill.utils.errors import SkillError

ROOT = Path(__file__).parents[2]
PACKAGES = (
    *("munge", "libmunge2", "libhwloc15"),
    *("slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins"),
)
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={place}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={place}/controller
SlurmdSpoolDir={place}/node
SlurmctldPidFile={place}/controller.pid
SlurmdPidFile={place}/node.pid
PluginDir={plugins}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=10000
MinJobAge=300
KillWait=10
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000 State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes={host} MaxTime=INFINITE State=UP
"""


class Cluster:
    """Munge, the controller and one node, as processes of this user."""

    def __init__(self, place: Path) -> None:
        self.place, self.root = place, place / "root"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.programs = place / "programs"

    def unpack(self) -> None:
        missing = debian.missing_tools()
        if missing:
            pytest.skip(f"no {missing[0]} here: Slurm cannot be unpacked")
        work = self.place / "packages"
        work.mkdir()
        try:
            archives = debian._download(PACKAGES, work)
        except SkillError as error:
            pytest.skip(f"Slurm's packages cannot be had: {error}")
        for archive in archives.values():
            subprocess.run(["dpkg-deb", "-x", str(archive), str(self.root)], check=True)
        shutil.rmtree(work)
        (library,) = self.root.glob("usr/lib/*-linux-gnu")
        self.plugins = library / "slurm-wlm"
        self.environment = os.environ | {
            "LD_LIBRARY_PATH": f"{library}:{self.plugins}",
            "SLURM_CONF": str(self.place / "slurm.conf"),
        }
        for name in ("munged", "slurmctld-wlm", "slurmd-wlm", "slurmstepd-wlm"):
            linked = subprocess.run(
                ["ldd", str(self.root / "usr/sbin" / name)],
                env=self.environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            lost = re.findall(r"(\S+) => not found", linked.stdout)
            if lost:
                pytest.skip(f"{name} needs {lost[0]}, which is not on this system")

    def start(self) -> None:
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        ports = [one.getsockname()[1] for one in sockets]
        for one in sockets:
            one.close()
        host = platform.node().partition(".")[0]
        text = CONFIGURATION.format(
            host=host, cpus=os.cpu_count(), user=_user(), ports=ports, place=self.place,
            plugins=self.plugins,
        )  # fmt: skip
        (self.place / "slurm.conf").write_text(text)
        for name in ("munge", "controller", "node", "programs"):
            (self.place / name).mkdir(mode=0o700)
        key = self.place / "munge/key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        # What a job runs loses Slurm's variables, so they stand in the programs.
        for program in (self.root / "usr/bin").iterdir():
            wrapper = self.programs / program.name
            variables = " ".join(
                f"{name}='{self.environment[name]}'" for name in ("SLURM_CONF", "LD_LIBRARY_PATH")
            )
            wrapper.write_text(
                f"""#!/bin/sh
for word do
    shift
    case "$word" in
        --gpus=*) echo "{program.name} $word" >>{self.place}/asked ;;
        *) set -- "$@" "$word" ;;
    esac
done
{variables} exec {program} "$@"
"""
            )
            wrapper.chmod(0o755)
        self._run("munged", "--foreground", "--force", f"--key-file={key}",
                  f"--socket={self.place}/munge/socket", f"--pid-file={self.place}/munge/pid",
                  f"--seed-file={self.place}/munge/seed",
                  f"--log-file={self.place}/munge/log")  # fmt: skip
        self._run("slurmctld-wlm", "-D")
        self._run("slurmd-wlm", "-D", "-d", str(self.root / "usr/sbin/slurmstepd-wlm"))
        deadline = time.monotonic() + 30
        while "idle" not in self.ask("sinfo", "-h"):
            if time.monotonic() > deadline:
                said = "; ".join((self.place / f"{n}.log").read_text()[-300:] for n in self._names)
                pytest.skip(f"Slurm does not start here: {said}")
            time.sleep(0.3)

    _names = ("munged", "slurmctld-wlm", "slurmd-wlm")

    def _run(self, name: str, *options: str) -> None:
        with (self.place / f"{name}.log").open("wb") as log:
            self.processes.append(
                subprocess.Popen(
                    [str(self.root / "usr/sbin" / name), *options],
                    env=self.environment,
                    stdout=log,
                    stderr=log,
                )
            )

    def ask(self, *command: str) -> str:
        done = subprocess.run(
            [str(self.programs / command[0]), *command[1:]],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.stdout + done.stderr

    def stop(self) -> None:
        if len(self.processes) == len(self._names):
            self.ask("scancel", "-u", _user())
        for process in reversed(self.processes):
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A short path without spaces: a socket's may have 107 characters."""
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as place:
        one = Cluster(Path(place))
        try:
            one.unpack()
            one.start()
            yield one
        finally:
            one.stop()


def settings() -> dict[str, object]:
    """The smoke preset with one student, whose stages are long enough to be stopped in."""
    written = yaml.safe_load((ROOT / "presets/smoke.yaml").read_text())
    stage = {"steps": 120, "validate_every": 120, "log_every": 40, "batch_seconds": 2}
    stage["micro_seconds"] = 1
    return written | {
        "stage1": written["stage1"] | stage,
        "stage2": written["stage2"] | stage,
        "students": {"s": {"method": "dphubert", "teachers": ["wavlm-random"], "sparsity": 0.5}},
    }


def profile() -> dict[str, Any]:
    """The profile with the memory and the cores of a small node, and two GPUs for stage 1."""
    read: dict[str, Any] = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
    small = "mem_mb=100 * attempt"
    read["default-resources"] = [
        small if one.startswith("mem_mb") else one for one in read["default-resources"]
    ]
    read["set-threads"] = dict.fromkeys(read["set-threads"], 1)
    for resources in read["set-resources"].values():
        resources["mem_mb"] = "200 * attempt"
    read["set-resources"]["prune_student"]["gpu"] = 2
    return read


class Run:
    """`snakemake` with the profile, as a process that submits to the cluster."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder, self.log = cluster, folder, folder / "run.log"
        (folder / "profile").mkdir()
        (folder / "profile/config.yaml").write_text(yaml.safe_dump(profile()))
        (folder / "params.yaml").write_text(yaml.safe_dump(settings()))
        path = [str(cluster.programs), str(Path(sys.executable).parent), os.environ["PATH"]]
        command = [
            "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--profile", "profile",
            "--workflow-profile", "none", "--slurm-status-command", "squeue", "--slurm-no-account",
            "--slurm-init-seconds-before-status-checks", "1", "--seconds-between-status-checks",
            "1", "--latency-wait", "10", "--", "results/stage2/s.safetensors",
        ]  # fmt: skip
        environment = os.environ | {"PATH": os.pathsep.join(path)}
        with self.log.open("w") as file:
            self.process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=file, stderr=file
            )

    def submitted(self, rule: str) -> list[str]:
        """Numbers of the Slurm jobs of a rule."""
        said = self.log.read_text()
        return re.findall(rf"SLURM jobid (\d+) \(log: \S*/rule_{rule}/", said)

    def in_training(self, stage: str, processes: int) -> str:
        """Wait until a stage is in the midst of its training; the number of its Slurm job."""
        enough = lambda: len(trainings(stage, self.folder)) >= processes  # noqa: E731
        wait_for(lambda: enough() or self.process.poll() is not None, 600, self.log.read_text)
        assert self.process.poll() is None, self.log.read_text()
        return self.submitted(RULES[stage])[-1]

    def resumed(self, stage: str) -> int:
        """The step with which the stage went on."""
        text = (self.folder / f"logs/{stage}/s.log").read_text()
        found = re.search(r"resumed at step (\d+)", text)
        assert found, text
        return int(found[1])


RULES = {"stage1": "prune_student", "stage2": "distil_student"}


@pytest.mark.timeout(1500)
def test_stopped_jobs_go_on_where_they_were(cluster: Cluster, tmp_path: Path) -> None:
    """Stage 1, on two GPUs, is cancelled and submitted again; stage 2 is preempted and requeued."""
    run = Run(cluster, tmp_path)
    try:
        cluster.ask("scancel", run.in_training("stage1", 2))
        preempted = run.in_training("stage2", 1)
        said = cluster.ask("scontrol", "show", "job", preempted)
        assert "Partition=gpu" in said and "NumNodes=1" in said and "Requeue=1" in said
        cluster.ask("scontrol", "requeue", preempted)
        assert run.process.wait(1000) == 0, run.log.read_text()[-3000:]
    finally:
        run.process.kill()
    assert 0 < run.resumed("stage1") < 120
    assert 0 < run.resumed("stage2") < 120
    assert len(run.submitted("prune_student")) == 2
    assert run.submitted("distil_student") == [preempted]
    assert (tmp_path / "results/stage2/s.safetensors").exists()
    asked = (cluster.place / "asked").read_text().splitlines()
    assert {"sbatch --gpus=2", "srun --gpus=2", "sbatch --gpus=1"} <= set(asked)
