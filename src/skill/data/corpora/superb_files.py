"""Where official corpora lie, and files that SUPERB's tasks need beside them.

The files are in none of the archives, and are looked for before a run begins: the tasks that read
them come last. Imports no torch.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from skill.utils.errors import SkillError

FOLDERS = {
    "librispeech": "LibriSpeech",
    "speech_commands": "speech_commands",
    "voxceleb1": "VoxCeleb1",
    "fluent_speech_commands": "fluent_speech_commands_dataset",
    "audio_snips": "audio_snips",
    "iemocap": "IEMOCAP_full_release",
    "libri2mix": "Libri2Mix",
    "quesst14": "quesst14Database",
}
GATED = {
    "voxceleb1": "apply at https://www.robots.ox.ac.uk/~vgg/data/voxceleb/",
    "iemocap": "apply at https://sail.usc.edu/iemocap/",
    "fluent_speech_commands": "accept the licence at https://fluent.ai",
}
LISTS: dict[tuple[str, str], tuple[str, list[str]]] = {
    ("pr", "librispeech"): (
        "s3prl/downstream/ctc/lexicon of https://github.com/s3prl/s3prl",
        [
            "LibriSpeech/lexicon/librispeech-lexicon-200k-g2p.txt",
            "LibriSpeech/lexicon/librispeech-lexicon-allothers-g2p.txt",
        ],
    ),
    ("sf", "audio_snips"): (
        "the archive of Audio SNIPS that s3prl's instructions name",
        ["audio_snips/slots.txt"],
    ),
    ("er", "iemocap"): (
        "s3prl/downstream/emotion/meta_data of https://github.com/s3prl/s3prl",
        [f"IEMOCAP_full_release/meta_data/Session{n}/test_meta_data.json" for n in range(1, 6)],
    ),
    ("asv", "voxceleb1"): (
        "https://www.openslr.org/resources/49/voxceleb1_test_v2.txt",
        ["VoxCeleb1/voxceleb1_test_v2.txt"],
    ),
}
"""{(task, corpus): where to download the files, and their places below SKILL_CORPORA}."""
_NONE: tuple[str, list[str]] = ("", [])


def required_files(task: str, corpus: str) -> list[Path]:
    """The files of a task on a corpus, often none.

    Raises:
        SkillError: one is not there; the message says where to download it.
    """
    for problem in missing_files([(task, corpus)]):
        raise SkillError(problem)
    _, files = LISTS.get((task, corpus), _NONE)
    return [_place(file) for file in files]


def missing_files(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    """A sentence for each file of these tasks and corpora that is not there."""
    for task, corpus in pairs:
        source, files = LISTS.get((task, corpus), _NONE)
        for file in files:
            if not _place(file).is_file():
                yield (
                    f"superb.tasks.{task} needs {_place(file)}, which is not there; download it "
                    f"from {source}"
                )


def _place(file: str) -> Path:
    return Path(os.environ.get("SKILL_CORPORA") or "$SKILL_CORPORA", file)
