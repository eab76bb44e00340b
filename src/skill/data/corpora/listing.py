"""The verb `corpora` for corpora that stay as they are: fetched where that is free, and listed.

They lie below SKILL_CORPORA in their official layouts and get a manifest only.
"""

import os
from pathlib import Path

from skill.config.params import Corpus
from skill.data.corpora import archives, librispeech, superb


def run(name: str, job: Corpus, manifest: Path) -> None:
    """Write the manifest of the corpus `name`; fetch it before, where `data/corpora.csv` can.

    Raises:
        SkillError: in words, what is missing or damaged and what to do.
    """
    root = os.environ.get("SKILL_CORPORA")
    if job.kind == "librispeech":
        parts = job.parts or librispeech.PARTS
        wanted = [a for a in archives.listed() if a.kind == job.kind and a.part in parts]
        if root:
            archives.ensure(wanted, Path(root))
        librispeech.build(name, parts, manifest)
    else:
        superb.build(job.kind, name, manifest)
