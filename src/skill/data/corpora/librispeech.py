"""LibriSpeech where it lies: a manifest from the official layout, without decoding any audio.

`SKILL_CORPORA/LibriSpeech/PART/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NNNN.flac`, and the transcripts of a
chapter in one `.trans.txt`. Lengths come from the FLAC headers. Chapters are read in parallel, and
rows are written as they come, in order, so memory does not grow with the corpus.

Mini LibriSpeech is two more parts of the same layout.
Split: the official one: parts `train-…`, `dev-…`, `test-…`.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

from skill.data.corpora import omissions
from skill.data.manifest import LONGEST_SECONDS, RATE, Rows, Utterance
from skill.utils.errors import SkillError
from skill.utils.files import replacing
from skill.utils.progress import track
from skill.utils.text import read_lines

PARTS = (
    *("train-clean-100", "train-clean-360", "train-other-500"),
    *("dev-clean", "dev-other", "test-clean", "test-other"),
)
MINI = ("train-clean-5", "dev-clean-2")  # drawn from the others: only where they are asked for
_HEADER = 42
_AHEAD = 64

Found = tuple[list[Utterance], list[str]]


def build(name: str, parts: Sequence[str], manifest: Path) -> None:
    """Write the manifest of the given parts (all, where none are given).

    Raises:
        SkillError: SKILL_CORPORA is not set, a part is missing or unknown, or more than 1 % of the
            files are no FLAC files of 16 kHz mono; the message names the first.
    """
    corpora = os.environ.get("SKILL_CORPORA")
    if not corpora:
        raise SkillError(f"corpus {name}: SKILL_CORPORA is not set to the folder with LibriSpeech")
    root = Path(corpora)
    chapters: list[Path] = []
    for part in parts or PARTS:
        if part not in PARTS + MINI:
            raise SkillError(f"corpus {name}: {part!r} is no part of LibriSpeech")
        place = root / "LibriSpeech" / part
        if not place.is_dir():
            raise SkillError(f"corpus {name}: {place} is missing")
        inside = sorted(path for path in place.glob("[!.]*/[!.]*") if path.is_dir())
        _require_audio(name, place, inside)
        chapters += inside
    rows, bad, untold = 0, [], []
    with replacing(manifest) as temporary, Rows(temporary) as out:
        with track(len(chapters), f"corpora {name}") as progress:
            for number, (utterances, unreadable) in enumerate(_in_order(name, root, chapters), 1):
                for utterance in utterances:
                    out.write(utterance)
                    if not utterance.text:
                        untold.append(utterance.id)
                rows += len(utterances)
                bad += unreadable
                progress.update(number, utterances=rows)
        omissions.report_unreadable(name, bad, rows + len(bad))
        omissions.report(name, "no transcript (the audio stays)", untold)


def require_place(name: str, parts: Sequence[str], root: Path) -> None:
    """See that no part lies beside its place, where it would be fetched a second time.

    Raises:
        SkillError: one does; the message says where, and where it belongs.
    """
    for part in parts:
        expected = root / "LibriSpeech" / part
        for other in (root / part, expected.parent / "LibriSpeech" / part):
            if other.is_dir() and not expected.is_dir():
                raise SkillError(f"corpus {name}: {other} is expected in {expected}")


def _require_audio(name: str, place: Path, chapters: Sequence[Path]) -> None:
    if any(next(chapter.glob("[!.]*.flac"), None) for chapter in chapters):
        return
    inside = [path.name for chapter in chapters or [place] for path in islice(chapter.iterdir(), 3)]
    there = f"there: {', '.join(sorted(inside)[:3])}" if inside else "nothing is there"
    raise SkillError(
        f"corpus {name}: no audio found: expected {place}/SPEAKER/CHAPTER/*.flac (16 kHz mono); "
        f"{there}"
    )


def _in_order(name: str, root: Path, chapters: list[Path]) -> Iterator[Found]:
    """What each chapter holds, read by all cores, never more than a few chapters ahead."""
    read = partial(chapter_rows, name, root)
    with ProcessPoolExecutor() as pool:
        waiting = iter(chapters)
        ahead = [pool.submit(read, chapter) for chapter in islice(waiting, _AHEAD)]
        while ahead:
            yield ahead.pop(0).result()
            ahead += [pool.submit(read, chapter) for chapter in islice(waiting, 1)]


def chapter_rows(name: str, root: Path, chapter: Path) -> Found:
    """The utterances of a chapter, sorted, and what could not be read of it."""
    speaker, part = chapter.parent.name, chapter.parent.parent.name
    texts, utterances, bad = {}, [], []
    for script in sorted(chapter.glob("[!.]*.trans.txt")):
        try:
            for words in map(str.split, read_lines(script)):
                if words:
                    texts[words[0]] = " ".join(words[1:])
        except SkillError as error:
            bad.append(str(error))
    for path in sorted(chapter.glob("[!.]*.flac")):
        try:
            samples = flac_samples(path)
        except SkillError as error:
            bad.append(str(error))
            continue
        utterances.append(
            Utterance(
                id=path.stem,
                corpus=name,
                path=path.relative_to(root).as_posix(),
                start=0,
                samples=samples,
                speaker=speaker,
                text=texts.get(path.stem, ""),
                split=part.partition("-")[0],
            )
        )
    return utterances, bad


def flac_samples(path: Path) -> int:
    """Number of samples of a 16 kHz mono FLAC file, from its first 42 bytes (STREAMINFO)."""
    if not path.is_file():
        raise SkillError(f"{path}: not a regular file")
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER)
    except OSError as error:
        raise SkillError(f"{path}: {error.strerror}") from error
    if len(head) < _HEADER or head[:4] != b"fLaC" or head[4] & 0x7F:
        raise SkillError(f"{path}: not a FLAC file")
    packed = int.from_bytes(head[18:26], "big")  # rate 20, channels 3, depth 5, samples 36 bits
    rate, channels, samples = packed >> 44, (packed >> 41 & 7) + 1, packed & (1 << 36) - 1
    if (rate, channels) != (RATE, 1):
        raise SkillError(f"{path}: {rate} Hz and {channels} channels, not 16000 Hz mono")
    if not 0 < samples <= LONGEST_SECONDS * RATE:
        raise SkillError(f"{path}: its header gives no length, or one above 3 hours")
    return samples
