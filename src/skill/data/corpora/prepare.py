"""The verb `corpora`: one audio file and its manifest, or the manifest of files where they lie.

All audio of a converted corpus becomes one 16-bit FLAC of 16 kHz mono, written clip after clip, and
the manifest says where each lies. The same files and library versions give the same bytes. Official
corpora stay in their layouts below SKILL_CORPORA; they are fetched where that is free, and listed.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from os import PathLike
from pathlib import Path

import soundfile

from skill.config.params import Corpus
from skill.data.corpora import (
    archives,
    asterisk,
    debian,
    folder,
    hedgewars,
    librispeech,
    omissions,
    queen,
    spoken_templates,
    superb,
    tones,
)
from skill.data.corpora.clips import (
    BAND_RATE,
    SHORTEST,
    Clip,
    band_limit,
    split_at_pauses,
    to_pcm,
)
from skill.data.manifest import RATE, Utterance, write_manifest
from skill.utils.disk import need_space
from skill.utils.errors import SkillError
from skill.utils.files import replacing
from skill.utils.progress import track

_BYTES = {"queen": 700 << 20, "asterisk": 500 << 20, "hedgewars": 250 << 20}


def run(
    name: str,
    job: Corpus,
    manifest: str | PathLike[str],
    audio: str | PathLike[str] | None = None,
) -> None:
    """Make the corpus `name` of `job.kind`: `audio` and its manifest.

    Kinds: `queen`, `asterisk`, `hedgewars` (Debian packages, else a folder in SKILL_CORPORA, else
    synthetic speech where espeakng-loader is installed), `folder` (SKILL_CORPORA), `synthetic`
    (generated, for tests), `spoken_commands`, `spoken_requests` and `spoken_moods` (templates in
    the voices of espeak-ng, for IC, SF and ER); and, without `audio`, corpora that stay where
    they are: `librispeech` and the kinds of `skill.data.corpora.superb`.

    Raises:
        SkillError: in words, what is missing or damaged and what to do.
    """
    if not job.stored:
        _list(name, job, Path(manifest))
        return
    if audio is None:
        raise SkillError(f"corpora.{name}: kind {job.kind} needs an audio file to write")
    need_space(Path(audio).parent, _BYTES.get(job.kind, 50 << 20), f"corpus {name}")
    clips, kind = _source(name, job)
    utterances = store(name, clips, kind, Path(audio))
    write_manifest(manifest, utterances)


def _list(name: str, job: Corpus, manifest: Path) -> None:
    root = os.environ.get("SKILL_CORPORA")
    if job.kind != "librispeech":
        superb.build(job.kind, name, manifest)
        return
    parts = job.parts or librispeech.PARTS
    if root:
        librispeech.require_place(name, parts, Path(root))
        archives.ensure([a for a in archives.read_archives() if a.part in parts], Path(root))
    librispeech.build(name, parts, manifest)


def _source(name: str, job: Corpus) -> tuple[Iterable[Clip], str]:
    """The clips of a corpus, and whether they are human or synthetic speech."""
    if job.kind == "synthetic":
        return tones.clips(name, job.speakers, job.sentences), "synthetic"
    if job.kind == "folder":
        return folder.clips(name, folder.root(name)), "human"
    if job.kind in spoken_templates.TEMPLATES:
        return spoken_templates.TEMPLATES[job.kind](name), "synthetic"
    if job.kind not in _PACKAGED:
        raise SkillError(f"corpora.{name}.kind: unknown kind {job.kind!r}")
    packaged, names = _PACKAGED[job.kind]
    corpora = os.environ.get("SKILL_CORPORA")
    has_folder = corpora and (Path(corpora) / name).is_dir()
    if debian.is_cached(names) and not has_folder:
        return packaged(), "human"
    missing = debian.missing_tools()
    if has_folder or (corpora and missing):
        place = folder.root(name, shared=True)
        print(f"corpora: {name} is made from the folder {place}, not from Debian packages",
              file=sys.stderr)  # fmt: skip
        return folder.clips(name, place), "human"
    if missing and find_spec("espeakng_loader"):
        from skill.data.corpora import espeak

        print(f"corpora: {name} is SYNTHETIC speech of espeak-ng: there is no {missing[0]} here, "
              "and SKILL_CORPORA is not set", file=sys.stderr)  # fmt: skip
        return espeak.clips(name), "synthetic"
    return packaged(), "human"


def _queen() -> Iterator[Clip]:
    return queen.clips(debian.files_of([queen.PACKAGE])[queen.PACKAGE])


def _asterisk() -> Iterator[Clip]:
    return asterisk.clips(debian.files_of(asterisk.PACKAGES))


def _hedgewars() -> Iterator[Clip]:
    return hedgewars.clips(debian.files_of([hedgewars.PACKAGE])[hedgewars.PACKAGE])


_PACKAGED: dict[str, tuple[Callable[[], Iterator[Clip]], Sequence[str]]] = {
    "queen": (_queen, (queen.PACKAGE,)),
    "asterisk": (_asterisk, asterisk.PACKAGES),
    "hedgewars": (_hedgewars, (hedgewars.PACKAGE,)),
}


def store(name: str, clips: Iterable[Clip], kind: str, audio: Path) -> list[Utterance]:
    """Write all clips into the file `audio`, in order; return the manifest's rows.

    Clips shorter than 0.3 s are left out. Clips longer than 15 s are cut at their pauses; the
    pieces have no text. A clip that cannot be read is reported and left out.

    Raises:
        SkillError: more than 1 % of the clips cannot be read, none can, or the disk is full.
    """
    listed = list(clips)
    utterances: list[Utterance] = []
    bad: list[str] = []
    short = at = 0
    place = _shown(audio)
    with replacing(audio) as temporary, track(len(listed), f"corpora {name}") as progress:
        try:
            with soundfile.SoundFile(temporary, "w", RATE, 1, "PCM_16", format="FLAC") as file:
                for number, clip in enumerate(listed, 1):
                    try:
                        parts = split_at_pauses(band_limit(*clip.load()), BAND_RATE)
                    except (SkillError, soundfile.LibsndfileError) as error:
                        bad.append(f"{clip.id}: {error}")
                        continue
                    for index, part in enumerate(parts):
                        pcm = to_pcm(part)
                        if len(pcm) < SHORTEST * RATE:
                            short += 1
                            continue
                        file.write(pcm)
                        is_single = len(parts) == 1
                        utterances.append(
                            Utterance(
                                id=clip.id if is_single else f"{clip.id}-{index:02d}",
                                corpus=name,
                                path=place,
                                start=at,
                                samples=len(pcm),
                                speaker=clip.speaker,
                                language=clip.language,
                                text=clip.text if is_single else "",
                                split=clip.split,
                                kind=kind,
                            )
                        )
                        at += len(pcm)
                    progress.update(number, minutes=at / RATE / 60)
        except (soundfile.LibsndfileError, AssertionError) as error:
            raise SkillError(f"{audio}: cannot be written (disk full?): {error}") from error
        _check(name, len(listed), utterances, bad, short)
    return utterances


def _check(name: str, total: int, utterances: list[Utterance], bad: list[str], short: int) -> None:
    omissions.report_unreadable(name, bad, total)
    if not utterances:
        raise SkillError(f"corpus {name}: no audio of {SHORTEST} s or more among {total} clips")
    summary = f"{len(utterances)} utterances, {sum(u.seconds for u in utterances) / 60:.1f} minutes"
    summary += f", {sum(bool(u.text) for u in utterances)} with text"
    summary += f"; left out: {short} shorter than {SHORTEST} s, {len(bad)} unreadable"
    print(f"corpora {name}: {summary}", file=sys.stderr, flush=True)


def _shown(audio: Path) -> str:
    """`audio` relative to the working directory where it lies below it."""
    full, here = audio.absolute(), Path.cwd()
    return (full.relative_to(here) if full.is_relative_to(here) else full).as_posix()
