"""What a stage says of itself: its curve, its summary, and warnings about the student's size."""

import sys
from pathlib import Path
from typing import Any

from skill.distillation.distiller import Distiller
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.training.loop import TrainingResult
from skill.utils.files import write_csv, write_json

_SIZE_TOLERANCE = 0.01
_SPARSITY_TOLERANCE = 0.02


def write(
    output: Path,
    student: SpeechEncoder,
    teacher: SpeechEncoder,
    distiller: Distiller,
    result: TrainingResult,
    facts: dict[str, Any],
) -> None:
    """The curve (.csv), a row for each `log_every` steps, and the summary (.json) beside `output`.

    The summary has sizes, targets and losses at the end; `facts` are added.
    """
    columns = list(dict.fromkeys(key for row in result.curve for key in row))
    write_csv(output.with_suffix(".csv"), result.curve, columns or ["step", "loss"])
    last = result.curve[-1] if result.curve else {}
    summary = {
        "parameters": student.num_parameters(),
        "teacher_parameters": teacher.num_parameters(),
        "sparsity": 1 - student.num_parameters() / teacher.num_parameters(),
        "expected_sparsity": last.get("sparsity"),
        **_shape(student.config),
        "teacher": _shape(teacher.config),
        "targets": [
            {
                "teacher": [[name, layer] for name, layer in target.teacher],
                "student": list(target.student),
                "loss": last.get(f"target{index}"),
            }
            for index, target in enumerate(distiller.targets)
        ],
        "loss": last.get("distillation"),
        "validation_loss": last.get("validation_loss"),
        "best_validation_loss": result.best_loss if result.best_step else None,
        "best_step": result.best_step,
        "skipped_steps": result.skipped_steps,
        "precision": result.precision,
    }
    write_json(output.with_suffix(".json"), summary | facts)
    if result.skipped_steps:
        print(f"{output.stem}: {result.skipped_steps} steps were skipped", file=sys.stderr)


def _shape(config: EncoderConfig) -> dict[str, list[int]]:
    return {
        "heads": [len(heads) for heads in config.heads],
        "ffn": list(config.ffn),
        "conv_channels": list(config.conv_channels),
    }


def warn_of_sparsity(name: str, sparsity: float, result: TrainingResult) -> None:
    """Say where the gates have not reached the sparsity that the student is now pruned to."""
    expected = next((row["sparsity"] for row in result.curve[::-1] if "sparsity" in row), 0.0)
    if abs(expected - sparsity) > _SPARSITY_TOLERANCE:
        _warn(
            f"{name}: stage 1 ended at an expected sparsity of {expected:.3f} instead of "
            f"{sparsity}; the rest is pruned in one step, which costs accuracy. Increase "
            "stage1.steps or change stage1.multiplier_learning_rate."
        )


def warn_of_size(name: str, parameters: int, goal: float) -> None:
    """Whole layers as units may be too coarse for a size; the student is kept all the same."""
    if abs(parameters - goal) > _SIZE_TOLERANCE * goal:
        _warn(
            f"{name}: {parameters} parameters instead of {goal:.0f}: no set of the units that are "
            "pruned comes nearer"
        )


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
