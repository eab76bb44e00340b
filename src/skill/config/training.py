"""Sections of `params.yaml` that train: the loop, and the two stages of distillation."""

from typing import Literal

from pydantic import model_validator

from skill.config.types import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    Seconds,
    Section,
    StrictBool,
)


class Training(Section):
    """One run of the training loop (`skill.training.loop`)."""

    steps: NonNegativeInt
    """Updates."""
    warmup: NonNegativeInt
    """Steps over which the learning rates rise linearly; they fall linearly to 0 afterwards."""
    learning_rate: NonNegativeFloat
    """Of the weights, at its highest."""
    batch_seconds: Seconds = 40.0
    """Audio of one step."""
    micro_seconds: Seconds = 40.0
    """Audio of one forward and backward pass, at most."""
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    """Of forward and backward passes; weights stay in float32. auto: bf16 where the processor has
    kernels for it that compute this model right, else float32."""
    tf32: StrictBool = False
    """On a GPU: products of float32 numbers with mantissas of 10 bits."""
    clip: PositiveFloat = 10.0
    """Largest norm of a step's gradient."""
    fixed_order: StrictBool = False
    """The same batches in the same order in every epoch, as in DPHuBERT's code."""
    log_every: PositiveInt = 10
    """Steps between two rows of the curve."""
    validate_every: PositiveInt = 250
    """Steps between two looks at the development set."""
    max_bad_steps: PositiveInt = 10
    """Steps in a row without a finite loss or gradient that end the run."""

    @model_validator(mode="after")
    def _within(self) -> "Training":
        if self.warmup > self.steps:
            raise ValueError(f"warmup {self.warmup} is longer than steps {self.steps}")
        if self.validate_every % self.log_every:
            raise ValueError(
                f"validate_every {self.validate_every} is no multiple of log_every {self.log_every}"
            )
        return self


class Distilling(Training):
    """What both stages have."""

    dropout: Probability | None = None
    """Of the student's projection, attention and blocks; none: what it starts with, which is the
    teacher's own in stage 1 and stage 1's in stage 2."""
    compile: StrictBool = False
    """Compile the blocks of student and teachers (`torch.compile`): slow to start."""


class Stage1(Distilling):
    """Pruning and distillation at once."""

    gate_learning_rate: NonNegativeFloat = 0.02
    """Of log α."""
    multiplier_learning_rate: NonNegativeFloat | None = None
    """Of the λ; none: the gates'. In a short run λ as fast as the gates overshoots the target."""
    sparsity_warmup: NonNegativeInt = 0
    """Steps over which the target sparsity rises linearly from 0."""

    @model_validator(mode="after")
    def _target_reached(self) -> "Stage1":
        if self.sparsity_warmup > self.steps:
            raise ValueError(
                f"sparsity_warmup {self.sparsity_warmup} is longer than steps {self.steps}"
            )
        return self


class Stage2(Distilling):
    """Distillation of the pruned student; 0 steps leave it as it is."""
