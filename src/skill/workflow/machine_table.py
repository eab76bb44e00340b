"""The table of `skill check`: which of a run's models this machine computes right."""

from collections.abc import Iterator
from pathlib import Path

from skill.config.params import Params
from skill.data.manifest import read_manifest
from skill.encoder.checkpoint import load_encoder
from skill.training.exactness import Subject
from skill.training.machine_check import speech_clip, speech_like, table
from skill.utils.errors import SkillError
from skill.utils.files import checkout_path


def print_table(params: Params) -> None:
    """Try the models that are there in float32 and bf16, on speech of the run's own corpora.

    Without a corpus, a voice-like sound takes its place. Models that are not there yet are tried
    by the jobs that use them.

    Raises:
        SkillError: a model is computed wrongly.
    """
    subjects = list(_subjects(params))
    if not subjects:
        print("no model is there yet: each job tries its own before it starts")
        return
    manifests = [Path(f"results/corpora/{name}.csv") for name in params.unlabelled.corpora]
    prepared = [path for path in manifests if path.is_file()]
    utterances = (utterance for path in prepared for utterance in read_manifest(path))
    text, right = table(subjects, speech_clip(utterances) if prepared else speech_like())
    print(text)
    if not right:
        raise SkillError(
            "this machine computes a model wrongly; write `precision: float32`, or set "
            "ONEDNN_MAX_CPU_ISA=AVX512_CORE (or AVX2) in the environment and check again"
        )


def _subjects(params: Params) -> Iterator[Subject]:
    for name, teacher in params.teachers.items():
        result = Path(f"results/teachers/{name}.safetensors")
        source = checkout_path(teacher.source) if teacher.source else None
        for path in (result, source):
            if path is not None and path.suffix == ".safetensors" and path.is_file():
                yield Subject(name, load_encoder(path), gradients=True)
                break
    for name in params.students:
        path = Path(f"results/stage2/{name}.safetensors")
        if path.is_file():
            yield Subject(name, load_encoder(path), gradients=True)
