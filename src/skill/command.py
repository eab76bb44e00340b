"""The verbs: the steps of the workflow, each runnable by hand, and what uses their results."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from skill import verbs

_FILE: dict[str, Any] = {"type": Path, "metavar": "FILE", "required": True}
_MAYBE: dict[str, Any] = {"type": Path, "metavar": "FILE"}
_FILES: dict[str, Any] = {"type": Path, "metavar": "FILE", "nargs": "+", "required": True}
_FOLDER: dict[str, Any] = {"type": Path, "metavar": "DIR", "required": True}
_JSON: dict[str, Any] = {"metavar": "JSON", "required": True}
_SOME: dict[str, Any] = {"type": Path, "metavar": "FILE", "nargs": "+"}
_ALONE: dict[str, Any] = {"type": Path, "metavar": "FILE", "nargs": "*"}
_OPTIONS: dict[str, Any] = {"metavar": "JSON", "default": "{}"}
_FLAG: dict[str, Any] = {"action": "store_true"}
_STAGE: dict[str, dict[str, Any]] = {
    "name": {}, "--params": _JSON, "--teachers": _FILES, "--manifests": _FILES,
    "--clustering": _MAYBE, "--output": _FILE, "--curve": _FILE, "--summary": _FILE,
    "--scratch": _FOLDER,
}  # fmt: skip

VERBS: dict[str, tuple[Callable[[argparse.Namespace], None], str, dict[str, dict[str, Any]]]] = {
    "corpora": (
        verbs.corpora, "fetch a corpus and write its manifest",
        {"name": {}, "--params": _JSON, "--manifest": _FILE, "--audio": _MAYBE},
    ),
    "teacher": (
        verbs.teacher, "fetch or convert a teacher",
        {"name": {}, "--params": _JSON, "--output": _FILE},
    ),
    "pretrain": (
        verbs.pretrain, "make a sample teacher by masked prediction",
        {
            "name": {}, "--params": {"metavar": "JSON"},
            "--manifests": {"type": Path, "metavar": "FILE", "nargs": "+"},
            "--output": _MAYBE, "--scratch": {"type": Path, "metavar": "DIR"},
        },
    ),
    "activations": (
        verbs.activations, "hidden states of a teacher on the calibration set",
        {"--params": _JSON, "--teacher": _FILE, "--manifests": _FILES, "--output": _FILE},
    ),
    "similarity": (
        verbs.similarity, "similarity of layers, of teachers or in any FILE of layer states",
        {
            "files": _ALONE, "--params": _OPTIONS, "--activations": _SOME, "--teachers": _SOME,
            "--manifests": _SOME, "--calibration": {"metavar": "JSON"}, "--output": _MAYBE,
        },
    ),
    "clustering": (
        verbs.clustering, "clusters of layers, of teachers or in any FILE of states or of CKA",
        {
            "files": _ALONE, "--params": _OPTIONS | {"default": '{"num_clusters": "auto"}'},
            "--compare": _OPTIONS, "--similarity": _MAYBE, "--output": _MAYBE, "--table": _MAYBE,
            "--criterion": _MAYBE,
        },
    ),
    "stability": (
        verbs.stability, "how far clusters depend on the utterances that were chosen",
        {"--params": _JSON, "--activations": _FILES, "--output": _FILE, "--curve": _FILE},
    ),
    "study": (
        verbs.study, "how clusters depend on calibration audio, linkage and kernel",
        {"--params": _JSON, "--activations": _FILES, "--output": _FILE},
    ),
    "stage1": (verbs.stage1, "prune and distil a student", _STAGE),
    "stage2": (verbs.stage2, "distil the pruned student", _STAGE | {"--student": _FILE}),
    "regression": (
        verbs.regression, "how well a student has learned each layer of its teachers",
        {
            "--params": _JSON, "--student": _FILE, "--teachers": _FILES, "--summary": _FILE,
            "--manifests": _FILES, "--output": _FILE,
        },
    ),
    "superb": (
        verbs.superb, "train and test the head of one task",
        {
            "upstream": {}, "task": {}, "--params": _JSON, "--encoder": _MAYBE,
            "--manifests": _FILES, "--output": _FILE, "--items": _FILE, "--head": _FILE,
            "--scratch": _FOLDER,
        },
    ),
    "size": (
        verbs.size, "parameters, operations and speed of an upstream",
        {"upstream": {}, "--encoder": _MAYBE, "--output": _FILE},
    ),
    "scores": (
        verbs.scores, "all results in one table",
        {"--params": _JSON, "--results": _FILES, "--output": _FILE, "--table": _FILE},
    ),
    "paper": (
        verbs.paper, "the small table behind a figure",
        {"name": {}, "--params": _JSON, "--inputs": _FILES, "--output": _FILE},
    ),
    "figure": (
        verbs.figure, "draw a figure from its table",
        {"name": {}, "--table": _FILE, "--pdf": _FILE, "--png": _FILE},
    ),
    "predict": (
        verbs.predict, "what a trained head says of one's own files",
        {
            "task": {}, "files": {"type": Path, "nargs": "+", "help": "recordings"},
            "--head": _FILE | {"help": "results/superb/UPSTREAM/TASK.safetensors"},
            "--encoder": _MAYBE
            | {"help": "weights of the upstream, results/stage2/STUDENT.safetensors; none: FBANK"},
            "--json": _FLAG,
        },
    ),
    "export": (
        verbs.export, "write a student for `transformers` or, if so asked, in other forms",
        {
            "student": {"help": "a name under results/stage2/, or a file"},
            "folder": {"type": Path}, "--onnx": _FLAG, "--s3prl": _FLAG,
            "--dphubert": _FLAG,
            "--states": {"choices": ("all", "last"), "default": "all", "help": "of ONNX models"},
        },
    ),
    "plan": (
        verbs.plan, "jobs, hours, disk and download of every phase, and what is done",
        {"file": {"type": Path, "nargs": "?", "default": Path("params.yaml")}},
    ),
    "check": (verbs.check, "check a file of parameters", {"file": {"type": Path}}),
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser("python -m skill", description=__doc__)
    listed = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, (_, text, options) in VERBS.items():
        verb = listed.add_parser(name, help=text, description=text)
        for option, settings in options.items():
            verb.add_argument(option, **settings)
        verb.add_argument("--threads", type=int, help="of torch and its libraries")
        verb.add_argument("--gpus", type=int, default=1, help="more than one: one process for each")
    return top
