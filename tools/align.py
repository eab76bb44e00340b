"""Forced alignment of the English transcripts: data/alignments.csv.gz and its summary.

Run once, by hand, where the corpora of `params.yaml` are made (`snakemake corpora`):

    pip install "skill[alignment]"
    python tools/align.py

Takes about ten minutes of one core. pocketsphinx aligns words first and their phones in a second
pass. Left out and counted in data/alignments.json: clips with a word that the dictionary does not
know, and clips that do not align.
"""

import re
from collections import Counter
from pathlib import Path

import numpy as np

from skill.data.alignments import Alignments, Phone, Word, write
from skill.data.audio import read_segment
from skill.data.manifest import Utterance, read_manifest
from skill.utils.errors import SkillError
from skill.utils.files import sha256, write_json
from skill.utils.progress import track

CORPORA = ("queen", "asterisk")
_LISTED = 100  # of the missing words in the summary, the most frequent


def words_of(text: str) -> list[str]:
    """A transcript's words as the dictionary writes them."""
    return re.findall(r"[a-z']+", text.lower())


class Aligner:
    """pocketsphinx with its English model and dictionary."""

    def __init__(self) -> None:
        import pocketsphinx

        self.decoder = pocketsphinx.Decoder(samprate=16000, bestpath=False, loglevel="FATAL")

    def missing(self, words: list[str]) -> list[str]:
        """Words that the dictionary does not have."""
        return [word for word in words if self.decoder.lookup_word(word) is None]

    def align(self, waveform: np.ndarray, words: list[str]) -> tuple[Word, ...]:
        """Words and phones of a waveform [S].

        Raises:
            ValueError: it does not align.
        """
        pcm = np.round(waveform * 32768).clip(-32768, 32767).astype(np.int16).tobytes()
        try:
            self.decoder.set_align_text(" ".join(words))
            self._pass(pcm)
            if self.decoder.hyp() is None:
                raise ValueError("no path")
            self.decoder.set_alignment()
            self._pass(pcm)
        except RuntimeError as error:
            raise ValueError(str(error)) from None
        aligned, at = [], 0
        alignment = self.decoder.get_alignment()  # owns what its iterators point to
        for word in alignment:
            phones = []
            for phone in word:
                if phone.start != at:
                    raise ValueError(f"a gap before frame {phone.start}")
                phones.append(Phone(phone.name, at, phone.duration))
                at += phone.duration
            aligned.append(Word(re.sub(r"\(\d+\)$", "", word.name), tuple(phones)))
        if not aligned:
            raise ValueError("nothing")
        return tuple(aligned)

    def _pass(self, pcm: bytes) -> None:
        self.decoder.start_utt()
        self.decoder.process_raw(pcm, full_utt=True)
        self.decoder.end_utt()


def main() -> None:
    manifests = [Path(f"results/corpora/{name}.csv") for name in CORPORA]
    utterances = [
        utterance
        for manifest in manifests
        for utterance in read_manifest(manifest)
        if utterance.text and utterance.language == "en"
    ]
    aligner, alignments = Aligner(), Alignments()
    unknown: Counter[str] = Counter()
    unknown_clips: list[str] = []
    failed: dict[str, str] = {}
    with track(len(utterances), "alignment") as progress:
        for number, utterance in enumerate(utterances, 1):
            words = words_of(utterance.text)
            if missing := aligner.missing(words):
                unknown.update(missing)
                unknown_clips.append(utterance.id)
            else:
                try:
                    alignments[utterance.id] = aligner.align(read_segment(utterance), words)
                except ValueError as error:
                    failed[utterance.id] = str(error)
            progress.update(number)
    output = Path("data/alignments.csv.gz")
    write(output, alignments)
    write_json("data/alignments.json", summary(utterances, alignments, unknown, unknown_clips,
                                               failed, manifests, output))  # fmt: skip


def summary(
    utterances: list[Utterance],
    alignments: Alignments,
    unknown: Counter[str],
    unknown_clips: list[str],
    failed: dict[str, str],
    manifests: list[Path],
    output: Path,
) -> dict[str, object]:
    """What was aligned, and what was left out."""
    return {
        "command": "python tools/align.py",
        "aligner": "pocketsphinx 5.1.1",
        "sha256": sha256(output),
        "inputs": {manifest.name: sha256(manifest) for manifest in manifests},
        "clips": len(utterances),
        "aligned": len(alignments),
        "hours": sum(u.seconds for u in utterances if u.id in alignments) / 3600,
        "phones": sum(len(word.phones) for words in alignments.values() for word in words),
        "clips_with_unknown_words": unknown_clips,
        "unknown_words": dict(sorted(unknown.most_common(_LISTED))),
        "clips_that_do_not_align": failed,
    }


if __name__ == "__main__":
    try:
        main()
    except SkillError as error:
        raise SystemExit(str(error)) from None
