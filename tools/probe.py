"""What phones each layer knows: of log-mel, the real encoder, or teacher files.

    python tools/probe.py log-mel whisper-tiny.en data/teachers/*.safetensors

Puts them into docs/teachers/probe.csv and draws probe.png; the classifier is that of
`skill.superb.phone_probe`. Also draws curve.png from docs/teachers/curve-NAME.csv, copies
of the `curve.csv` that `skill pretrain` leaves in its scratch folder.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot

from skill.data.alignments import Alignments, phone_labels
from skill.data.alignments import read as read_alignments
from skill.data.audio import read_segment
from skill.data.fbank import log_mel
from skill.data.manifest import Utterance, read_manifest
from skill.encoder.checkpoint import load_encoder
from skill.encoder.inference import hidden_states
from skill.superb.phone_probe import PHONES, fit_probe
from skill.teachers import whisper
from skill.utils.errors import SkillError
from skill.utils.files import checkout_path, read_csv, write_csv

TRAIN, TEST = 420, 240  # clips
HOP = 320  # samples per frame
SMOOTHED = 10  # rows of a curve, each of one step
FOLDER = Path("docs/teachers")
States = Callable[[np.ndarray], dict[str, torch.Tensor]]


def fbank_states(waveform: np.ndarray) -> dict[str, torch.Tensor]:
    return {"0": log_mel(torch.from_numpy(waveform))[::2]}


def source(name: str) -> tuple[str, States, int]:
    """Title, function to states [T, D], and the sample that the first frame is centred on."""
    if name == "log-mel":
        return name, fbank_states, 200
    if not name.endswith(".safetensors"):
        real = whisper.load(name)

        def states(waveform: np.ndarray) -> dict[str, torch.Tensor]:
            return {str(layer): state for layer, state in enumerate(real.states(waveform))}

        return name, states, 0
    encoder = load_encoder(name).eval()

    def layers(waveform: np.ndarray) -> dict[str, torch.Tensor]:
        (states,) = hidden_states(encoder, [waveform])
        return {str(layer): state for layer, state in enumerate(states)}

    return Path(name).stem, layers, encoder.config.receptive_field // 2


def labels_of_frames(
    alignments: Alignments, utterance: Utterance, frames: int, centre: int
) -> np.ndarray:
    """Numbers in PHONES [T] of an utterance's frames; -1 where there is silence or nothing.

    Args:
        centre: the sample that the first frame is centred on.
    """
    numbers = {name: index for index, name in enumerate(PHONES)}
    samples = centre + HOP * np.arange(frames)
    return phone_labels(alignments[utterance.id], numbers, samples)


def probe_clips(
    utterances: Sequence[Utterance], alignments: Alignments, train: int, test: int, seed: int
) -> tuple[list[Utterance], list[Utterance]]:
    """`train` aligned clips of the training split and `test` of the others, drawn by `seed`."""
    draw = np.random.default_rng(seed)

    def drawn(splits: tuple[str, ...], count: int) -> list[Utterance]:
        aligned = [u for u in utterances if u.split in splits and u.id in alignments]
        order = draw.permutation(len(aligned))[:count].tolist()
        return [aligned[index] for index in order]

    return drawn(("train",), train), drawn(("dev", "test"), test)


def phones_right(
    train: Mapping[str, torch.Tensor],
    test: Mapping[str, torch.Tensor],
    labels: tuple[torch.Tensor, torch.Tensor],
) -> dict[str, float]:
    """Per cent of frames right for each state's features [N, D]; `labels` of train and test."""
    return {
        state: fit_probe(features, labels[0]).accuracy(test[state], labels[1])
        for state, features in train.items()
    }


def main() -> None:
    alignments = read_alignments(checkout_path("data/alignments.csv.gz"))
    utterances = [u for u in read_manifest("results/corpora/queen.csv") if u.seconds >= 1]
    parts = probe_clips(utterances, alignments, TRAIN, TEST, seed=0)
    FOLDER.mkdir(parents=True, exist_ok=True)
    table = FOLDER / "probe.csv"
    rows: list[dict[str, object]] = [*read_csv(table)] if table.exists() else []
    for name, states, first in map(source, sys.argv[1:]):
        features: list[dict[str, torch.Tensor]] = []
        labels: list[torch.Tensor] = []
        for part in parts:
            x, y = _frames(part, states, first, alignments)
            features.append(x)
            labels.append(y)
        right = phones_right(features[0], features[1], (labels[0], labels[1]))
        print(name, " ".join(f"{state}:{value:.1f}" for state, value in right.items()), flush=True)
        rows = [row for row in rows if row["upstream"] != name]
        rows += [
            {"upstream": name, "state": state, "right": f"{value:.2f}",
             "frames": len(labels[0]), "test_frames": len(labels[1])}
            for state, value in right.items()
        ]  # fmt: skip
    write_csv(table, rows, list(rows[0]))
    _draw_probe(rows)
    _draw_curves()


def _frames(
    part: list[Utterance], states: States, first: int, alignments: Alignments
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    collected: dict[str, list[torch.Tensor]] = {}
    labels = []
    for utterance in part:
        layers = states(read_segment(utterance))
        frames = len(next(iter(layers.values())))
        y = torch.from_numpy(labels_of_frames(alignments, utterance, frames, first))
        for state, x in layers.items():
            collected.setdefault(state, []).append(x[y >= 0].float())
        labels.append(y[y >= 0])
    return {state: torch.cat(x) for state, x in collected.items()}, torch.cat(labels)


def _draw_probe(rows: list[dict[str, object]]) -> None:
    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    names = list(dict.fromkeys(str(row["upstream"]) for row in rows))
    for name in names:
        values = [float(str(row["right"])) for row in rows if row["upstream"] == name]
        if len(values) == 1:
            axes.axhline(values[0], color="grey", linestyle=":", label=name)
        else:
            depth = np.linspace(0, 1, len(values))
            axes.plot(depth, values, marker="o", markersize=3, label=name)
    axes.set_xlabel("depth: state 0 to the last")
    axes.set_ylabel("frames of phones right (%)")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(FOLDER / "probe.png", dpi=150, metadata={"Software": None})


def _draw_curves() -> None:
    """Accuracy on clusters over the steps of all rounds, in training (smoothed) and held out."""
    curves = sorted(FOLDER.glob("curve-*.csv"))
    figure, grid = pyplot.subplots(
        1, len(curves), figsize=(6 * len(curves), 3.6), layout="constrained", squeeze=False
    )
    for axes, curve in zip(grid[0], curves, strict=True):
        rows = [row for row in read_csv(curve) if row["stage"].startswith("round")]
        steps = np.array([float(row["step"]) for row in rows])
        ends = np.append(np.diff(steps) < 0, False)  # of rounds but the last
        steps += np.concatenate([[0], np.cumsum(np.where(ends, steps, 0))[:-1]])
        for key in [key for key in rows[0] if key.endswith("_accuracy_seen")]:
            there = np.array([bool(row[key]) for row in rows])
            values = np.array([100 * float(row[key]) for row in rows if row[key]])
            held_out = key.startswith("validation_")
            if not held_out:
                weights = np.ones(SMOOTHED)
                values = np.convolve(values, weights, "same") / np.convolve(
                    np.ones(len(values)), weights, "same"
                )
            label = key.removeprefix("validation_").removesuffix("_accuracy_seen")
            axes.plot(steps[there], values, "o-" if held_out else "-", markersize=3,
                      label=f"{label}, {'held out' if held_out else 'training'}")  # fmt: skip
        axes.set_title(curve.stem.removeprefix("curve-"))
        axes.set_xlabel("steps")
        axes.set_ylabel("clusters right, frames not masked (%)")
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(FOLDER / "curve.png", dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    try:
        main()
    except SkillError as error:
        raise SystemExit(str(error)) from None
