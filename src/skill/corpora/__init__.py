"""Speech corpora: one module per kind of source, manifests, reading, batches by seconds.

`run` is the verb `corpora`. Its builders are imported only when it is called, so that a change in
how a corpus is unpacked does not look like a change of the programs that read it.
"""

from importlib import import_module
from os import PathLike
from typing import Any

Path = str | PathLike[str]


def run(name: str, job: Any, manifest: Path, audio: Path | None) -> None:
    """Make the manifest and the audio file of the corpus `name`; see `skill.corpora.build.run`."""
    import_module("skill.corpora.build").run(name, job, manifest, audio)
