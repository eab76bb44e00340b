"""Does this machine compute a model right? Asked once, before a job spends hours on it.

Kernels in reduced precision are chosen by processor and shape, and some are wrong: on processors
with AMX, oneDNN's bf16 convolution gave zeros for some lengths (pytorch issues 169688, 163347), and
nothing but the results said so. So the job's own models compute a second of the job's own speech
(`skill.training.exactness`). What differs by more than rounding stops the job, or, with
`precision: auto`, makes it go on in float32.
"""

import hashlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skill.data.audio import read_segment
from skill.data.manifest import RATE, Utterance
from skill.encoder import SpeechEncoder
from skill.training.distributed import gather
from skill.training.exactness import LIMITS, Finding, Subject, examine
from skill.training.precision import computed
from skill.utils import machine
from skill.utils.errors import SkillError
from skill.utils.files import canonical_json, read_json, write_json

_REMEDY = {
    "float32": "set ONEDNN_MAX_CPU_ISA=AVX2 in the environment (on a GPU: update torch or driver)",
    "bf16": "write `precision: float32` or `precision: auto`, or set "
    "ONEDNN_MAX_CPU_ISA=AVX512_CORE in the environment",
    "fp16": "write `precision: float32`",
}


def choose_precision(
    label: str,
    subjects: Sequence[Subject],
    clip: NDArray[np.float32],
    precision: str,
    folder: Path | None = None,
) -> str:
    """The precision that a job computes in: "float32", "bf16" or "fp16".

    Args:
        label: the job, for messages.
        clip: speech at 16 kHz (`speech_clip`).
        precision: what the parameters say; "auto" is bf16 where the processor has kernels for it
            and they are right, else float32.
        folder: where findings are kept, by machine, model shape and torch version; None: nowhere.

    Raises:
        SkillError: a model is computed wrongly; the layer, error, processor and remedy are named.
    """
    device = next(subjects[0].encoder.parameters()).device.type
    candidate = computed("bf16" if precision == "auto" else precision, device)
    problem = _problem(subjects, clip, candidate, folder)
    if problem and precision == "auto" and candidate != "float32":
        print(f"{label}: goes on in float32: {problem}", file=sys.stderr, flush=True)
        candidate = "float32"
        problem = _problem(subjects, clip, candidate, folder)
    if problem:
        raise SkillError(f"{label}: {problem}; {_REMEDY[candidate]}")
    return candidate


def _problem(
    subjects: Sequence[Subject], clip: NDArray[np.float32], precision: str, folder: Path | None
) -> str:
    """What is wrong, in words; empty where nothing is. The same in all processes of a training."""
    problem = ""
    for subject in subjects:
        finding = recall_or_examine(subject, clip, precision, folder)
        if not finding.right:
            problem = (
                f"{subject.name} is computed wrongly in {precision} by this machine "
                f"({_named(subject.encoder)}): {finding.fault} is off by "
                f"{100 * finding.fault_error:.1f} %"
            )
            break
    return next((text for text in gather(problem) if text), "")


def recall_or_examine(
    subject: Subject, clip: NDArray[np.float32], precision: str, folder: Path | None
) -> Finding:
    """`examine`, or what it found before on this machine for this shape."""
    path = None if folder is None else folder / f"{_key(subject, precision)}.json"
    if path is not None and path.exists():
        try:
            return Finding(**read_json(path)["finding"])
        except (SkillError, KeyError, TypeError):
            pass  # of a run that was killed, or of another version: examined anew
    finding = examine(subject, clip, precision)
    if path is not None:
        write_json(path, {"machine": machine.describe(precision), "finding": asdict(finding)})
    return finding


def _named(encoder: SpeechEncoder) -> str:
    facts = machine.describe()
    if next(encoder.parameters()).device.type != "cpu":
        return str(facts["device"])
    return f"{facts['processor']}, oneDNN's instructions {facts['onednn_isa']}"


def speech_clip(utterances: Iterable[Utterance], seconds: float = 1.0) -> NDArray[np.float32]:
    """The middle of the first readable utterance that is not silent, repeated where it is short.

    Raises:
        SkillError: there is none.
    """
    samples, problem = round(seconds * RATE), "all are silent"
    for utterance in utterances:
        count = min(samples, utterance.samples)
        try:
            clip = read_segment(utterance, (utterance.samples - count) // 2, count)
        except SkillError as error:
            problem = str(error)
            continue
        if float(np.abs(clip).max()) > 1e-4:
            return np.resize(clip, samples)
    raise SkillError(f"no utterance can be read to check the machine with: {problem}")


def speech_like(seconds: float = 1.0) -> NDArray[np.float32]:
    """A voice-like sound, for a check before there is any corpus: harmonics that come and go."""
    time = np.arange(round(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(120 + 20 * np.sin(2 * np.pi * 3 * time)) / RATE
    voice = sum(np.sin(number * phase) / number for number in range(1, 25))
    noise = np.random.default_rng(0).normal(size=len(time))
    loudness = 0.5 + 0.5 * np.sin(2 * np.pi * 4 * time)
    return (0.1 * (loudness * voice + 0.1 * noise)).astype(np.float32)


def findings_folder(scratch: Path) -> Path:
    """Where jobs with this scratch folder keep what was found: one place for all of a run."""
    for folder in (scratch, *scratch.parents):
        if folder.name == "scratch":
            return folder / "machine"
    return scratch / "machine"


def _key(subject: Subject, precision: str) -> str:
    """What a finding depends on: machine, libraries, threads, architecture, tensors' shapes."""
    shapes = [[name, list(p.shape)] for name, p in subject.encoder.named_parameters()]
    facts = [
        machine.describe(precision), str(next(subject.encoder.parameters()).device.type),
        subject.gradients, subject.encoder.config.to_dict(), shapes, LIMITS[precision],
    ]  # fmt: skip
    return hashlib.sha256(canonical_json(facts).encode()).hexdigest()[:24]


def table(subjects: Iterable[Subject], clip: NDArray[np.float32]) -> tuple[str, bool]:
    """For `skill check`: a row for each model and precision, and whether all of them are right."""
    rows = [["model", "shape", "precision", "state error", "gradient error", "verdict"]]
    all_right = True
    for subject in subjects:
        device = next(subject.encoder.parameters()).device.type
        for precision in ("float32", "bf16"):
            if computed(precision, device) != precision:
                rows.append(
                    [subject.name, _shape(subject.encoder), precision, "", "", "no kernels"]
                )
                continue
            finding = examine(subject, clip, precision)
            all_right &= finding.right
            verdict = "right" if finding.right else f"WRONG: {finding.fault}"
            rows.append([
                subject.name, _shape(subject.encoder), precision,
                f"{100 * finding.state_error:.3f} %", f"{100 * finding.gradient_error:.3f} %",
                verdict,
            ])  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines), all_right


def _shape(encoder: SpeechEncoder) -> str:
    config = encoder.config
    return f"{config.family} {config.num_blocks} x {config.width}"
