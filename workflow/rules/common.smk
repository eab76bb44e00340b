# Helpers of all rules: the checked parameters, names for wildcards, files of each phase.

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

# This checkout's code comes first, whatever is installed.
sys.path.insert(0, str(Path(workflow.basedir, "src")))

from snakemake.exceptions import WorkflowError

from skill.config import jobs
from skill.workflow import locks, outputs
from skill.workflow.checks import load_checked
from skill.data.corpora import superb_files
from skill.data.corpora.state import source_state
from skill.utils.errors import SkillError, describe
from skill.utils.files import canonical_json, checkout_path, data_table, sha256
from skill.utils.provenance import fingerprint

try:
    locks.prepare(Path(workflow.basedir), here=workflow.is_main_process)
    if workflow.is_main_process:
        locks.register_run()
except SkillError as error:
    raise WorkflowError(str(error)) from None
except OSError as error:
    raise WorkflowError(describe(error)) from None

# Slurm signals all processes of a job. The shell and `tee` have to outlive the program, which saves
# its state first: with them gone, Slurm would take the job for ended and kill it. A prefix takes the
# place of Snakemake's own, which makes a pipe fail with its program; hence it is repeated.
shell.prefix("set -euo pipefail; trap '' TERM; ")

# Snakemake's executors for Slurm put Python's path into a shell command as it is.
if any("slurm" in word for word in sys.argv):
    sys.executable = shlex.quote(sys.executable)


def checked_params():
    """The parameters: of the working directory, or of the checkout."""
    name = config.get("params", "params.yaml")
    path = Path(name) if Path(name).exists() else Path(workflow.basedir, name)
    try:
        return load_checked(path)
    except SkillError as error:
        raise WorkflowError(str(error)) from None


P = checked_params()

# The tasks that read these files come last, after days of training.
if os.environ.get("SKILL_CORPORA"):
    wanted = [(n, corpus) for n, t in outputs.tasks(P).items() for corpus in t.corpora]
    if problems := list(superb_files.missing_files(wanted)):
        raise WorkflowError("; ".join(problems))


# A program's whole parameters as one line of JSON: what reruns a rule is what its program receives.
def job(section):
    return canonical_json(section.model_dump())


# A pattern for a wildcard that has these values only, or none at all.
def one_of(names):
    return "|".join(re.escape(name) for name in names) or "(?!)"


def manifests(corpora):
    return [f"results/corpora/{name}.csv" for name in corpora]


def recordings(corpora):
    return [
        f"results/corpora/{name}.flac" for name in corpora if P.corpora[name].stored
    ]


def teachers(names):
    return [f"results/teachers/{name}.safetensors" for name in names]


# The hashes of a teacher's file, or of the files of its folder, so that other weights are noticed.
def weights(teacher):
    source = P.teachers[teacher].source
    place = checkout_path(source) if source else None
    if place is None or not place.exists():
        return None
    if place.is_file():
        return sha256(place)
    files = sorted(
        p for p in place.iterdir() if p.suffix in (".json", ".safetensors", ".bin")
    )
    return canonical_json({p.name: sha256(p) for p in files})


# What data/corpora.csv says of a kind of corpora: where it is fetched from, and its checksums.
def archives(kind):
    return canonical_json([row for row in data_table("corpora") if row["kind"] == kind])


def clusters(student):
    return [f"results/clustering/{student}.json"] if student in CLUSTERED else []


def encoder(upstream):
    if upstream in P.students:
        return [f"results/stage2/{upstream}.safetensors"]
    return teachers([upstream]) if upstream in P.teachers else []


STORED = [name for name, corpus in P.corpora.items() if corpus.stored]
LISTED = [name for name, corpus in P.corpora.items() if not corpus.stored]
RETRAINED = [name for name, teacher in P.teachers.items() if teacher.retrain]
FETCHED = [name for name in P.teachers if name not in RETRAINED]
STUDENTS = list(P.students)
CLUSTERED = [student.name for student in outputs.clustered_students(P)]
MATRICES, TREES, FIGURES = outputs.matrices(P), outputs.trees(P), outputs.figures(P)
TASKS, UPSTREAMS = outputs.tasks(P), outputs.upstreams(P)
UNLABELLED = P.unlabelled.corpora
# A GPU is taken by one job at a time. Without one, trainings run beside each other on one core
# each: two cores give a single small model hardly more than one does, and a job that wants two waits
# until both are free, with all that needs it.
GPU = int(shutil.which("nvidia-smi") is not None)
TRAINING_THREADS = 8 if GPU else 1
PAPER = [
    *expand(
        "results/paper/{table}.{kind}",
        table=outputs.tables(P),
        kind=["csv", "md", "html"],
    ),
    "results/paper/comparisons.csv",
    *expand(
        "results/paper/{figure}.{kind}", figure=FIGURES, kind=["csv", "pdf", "png"]
    ),
]
PAPER_JOB = job(jobs.PaperJob.of(P, UPSTREAMS))


wildcard_constraints:
    student=one_of(STUDENTS),
    teacher=one_of(P.teachers),
    upstream=one_of(UPSTREAMS),
    task=one_of(TASKS),
    matrix=one_of(MATRICES),
