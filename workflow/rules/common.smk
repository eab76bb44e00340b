# Helpers of all rules: the checked parameters, names for wildcards, files of each phase.

import re
import shlex
import shutil
import sys
from pathlib import Path

# This checkout's code comes first, whatever is installed.
sys.path.insert(0, str(Path(workflow.basedir, "src")))

from snakemake.exceptions import WorkflowError

from skill import jobs, runner
from skill.errors import SkillError
from skill.files import canonical_json, sha256
from skill.params import load
from skill.provenance import fingerprint
from skill.repository import find, table
from skill.students import baselines, references, sweeps
from skill.superb.score import REFERENCE_POINTS
from skill.superb.tasks import configured, official

runner.prepare(Path(workflow.basedir), here=workflow.is_main_process)
if workflow.is_main_process:
    runner.release_stale_lock()

# Slurm signals all processes of a job. The shell and `tee` have to outlive the program, which saves
# its state first: with them gone, Slurm would take the job for ended and kill it. A prefix takes the
# place of Snakemake's own, which makes a pipe fail with its program; hence it is repeated.
shell.prefix("set -euo pipefail; trap '' TERM; ")

# Snakemake's executors for Slurm put Python's path into a shell command as it is.
if any("slurm" in word for word in sys.argv):
    sys.executable = shlex.quote(sys.executable)


onstart:
    runner.hold()


def checked_params():
    """The parameters: of the working directory, or of the checkout."""
    name = config.get("params", "params.yaml")
    path = Path(name) if Path(name).exists() else Path(workflow.basedir, name)
    try:
        return load(path)
    except SkillError as error:
        raise WorkflowError(str(error)) from None


P = checked_params()


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
    place = find(source) if source else None
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
    return canonical_json([row for row in table("corpora") if row["kind"] == kind])


# Students share a similarity matrix, unless one has settings of its own.
def similarity_name(student):
    shared = student.similarity == P.similarity
    return "+".join(student.teachers) if shared else student.name


def clusters(student):
    return [f"results/grouping/{student}.json"] if student in GROUPED else []


def pretraining_job(teacher):
    return job(
        jobs.PretrainingJob(unlabelled=P.unlabelled, pretraining=P.pretraining[teacher])
    )


def stage1_job(student):
    s = P.students[student]
    return job(
        jobs.Stage1Job(
            seed=s.seed,
            teachers=s.teachers,
            definition=s.definition,
            sparsity=s.sparsity,
            unlabelled=P.unlabelled,
            stage=s.stage1,
        )
    )


def stage2_job(student):
    s = P.students[student]
    return job(
        jobs.Stage2Job(
            seed=s.seed,
            teachers=s.teachers,
            definition=s.definition,
            unlabelled=P.unlabelled,
            stage=s.stage2,
        )
    )


def study_job(student):
    s = P.students[student]
    return job(
        jobs.StudyJob(
            seed=P.seed, similarity=s.similarity, grouping=s.grouping, studies=P.studies
        )
    )


def encoder(upstream):
    if upstream in P.students:
        return [f"results/stage2/{upstream}.safetensors"]
    return teachers([upstream]) if upstream in P.teachers else []


def task_seed(upstream):
    return P.students[upstream].seed if upstream in P.students else P.seed


def described_upstreams():
    """What the tables have to know of each upstream."""
    described = {}
    for name in UPSTREAMS:
        if name in P.students:
            s = P.students[name]
            described[name] = jobs.Upstream(
                kind="student",
                method=s.method,
                base=s.base,
                teachers=s.teachers,
                sparsity=s.sparsity,
                seed=s.seed,
            )
        else:
            kind = "teacher" if name in P.teachers else "fbank"
            described[name] = jobs.Upstream(kind=kind, base=name)
    return described


STORED = [name for name, corpus in P.corpora.items() if corpus.stored]
LISTED = [name for name, corpus in P.corpora.items() if not corpus.stored]
RETRAINED = [name for name, teacher in P.teachers.items() if teacher.retrain]
FETCHED = [name for name in P.teachers if name not in RETRAINED]
STUDENTS = list(P.students)
GROUPED = [name for name, student in P.students.items() if student.grouping]
# Name of a similarity matrix: its teachers and settings. Every teacher has one of its own to look at.
MATRICES = {name: ((name,), P.similarity) for name in P.teachers} | {
    similarity_name(s): (s.teachers, s.similarity) for s in map(P.students.get, GROUPED)
}
# Of students with the same clusters the first stands for all.
TREES = {
    (similarity_name(s), s.grouping): s.name
    for s in map(P.students.get, reversed(GROUPED))
}.values()
TASKS = {name: configured(name, settings) for name, settings in P.superb.tasks.items()}
UPSTREAMS = (
    STUDENTS
    + (list(P.teachers) if P.superb.upstreams.teachers else [])
    + (["fbank"] if P.superb.upstreams.fbank else [])
)
UNLABELLED = P.unlabelled.corpora
# A GPU is taken by one job at a time. Without one, trainings run beside each other on one core
# each: two cores give a single small model hardly more than one does.
GPU = int(shutil.which("nvidia-smi") is not None)
TRAINING_THREADS = 8 if GPU else 1
# Ablations and what they vary; students and whom of the baseline they are compared with; sweeps of
# sparsities. All name students without their seeds.
ABLATIONS, BASELINES, SWEEPS = references(P), baselines(P), sweeps(P.students)
# Not ablations: these are compared in the figures that have a place for a few students only.
COMPARED = [name for name in STUDENTS if P.students[name].base not in ABLATIONS]
# The published results, and whether this run's stand beside them: ten tasks, official corpora.
PUBLISHED = str(find("data/published.csv"))
OFFICIAL = all(name in TASKS and official(TASKS[name]) for name in REFERENCE_POINTS)
# What each figure is drawn from, in the order of the paper.
FIGURES = (
    {f"similarity-{name}": [f"results/similarity/{name}.csv"] for name in MATRICES}
    | {f"dendrogram-{name}": [f"results/grouping/{name}.csv"] for name in TREES}
    | {
        "curves": expand(
            "results/{stage}/{student}.csv",
            student=COMPARED,
            stage=["stage1", "stage2"],
        ),
        "layers": expand(
            "results/stage1/{student}.{kind}",
            student=STUDENTS,
            kind=["json", "safetensors"],
        ),
        "imitation": expand("results/paper/imitation/{student}.csv", student=COMPARED),
        "size": ["results/superb/scores.csv"],
        "published": ["results/superb/scores.csv", PUBLISHED],
    }
    | ({"sparsity": ["results/superb/scores.csv"]} if SWEEPS else {})
    | ({"methods": ["results/paper/comparisons.csv"]} if BASELINES else {})
    | ({"ablation": ["results/paper/comparisons.csv"]} if ABLATIONS else {})
)
PAPER = [
    *expand("results/paper/results.{kind}", kind=["csv", "md", "html"]),
    *expand(
        "results/paper/table1.{kind}", kind=["csv", "md", "html"] if OFFICIAL else []
    ),
    "results/paper/comparisons.csv",
] + expand("results/paper/{figure}.{kind}", figure=FIGURES, kind=["csv", "pdf", "png"])
PAPER_JOB = job(
    jobs.PaperJob(
        upstreams=described_upstreams(),
        bootstrap=P.paper.bootstrap,
        sweeps=SWEEPS,
        references=ABLATIONS,
        baselines=BASELINES,
    )
)


wildcard_constraints:
    student=one_of(STUDENTS),
    teacher=one_of(P.teachers),
    upstream=one_of(UPSTREAMS),
    task=one_of(TASKS),
    matrix=one_of(MATRICES),
