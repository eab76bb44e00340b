"""How far a model's states and gradients in some precision are from exact ones.

The reference is computed in float64, whose kernels are other ones than those that are fast.

Axes: B utterances, S samples (16 kHz), T frames, D width.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skill.encoder import SpeechEncoder
from skill.training.precision import autocast

# Largest relative error of a frame or dimension of a state, and of a row or column of a weight's
# gradient. Measured on right kernels, sample models and Base: float32 1e-5 and 3e-4, bf16 0.016 and
# 0.15. Wrong ones gave 0.5 to 1.
LIMITS = {"float32": (1e-3, 0.02), "bf16": (0.05, 0.3), "fp16": (0.05, 0.3)}


@dataclass(frozen=True)
class Subject:
    """A model of a job; `gradients`: the job trains it."""

    name: str
    encoder: SpeechEncoder
    gradients: bool = False


@dataclass(frozen=True)
class Finding:
    """The largest errors of one model in one precision, and where they are; 0 where not computed.

    `fault`: the first layer (or the last weight) that is beyond its limit, and its error.
    """

    precision: str
    state_error: float
    gradient_error: float
    fault: str
    fault_error: float

    @property
    def right(self) -> bool:
        return not self.fault


def examine(subject: Subject, clip: NDArray[np.float32], precision: str) -> Finding:
    """Compare states, and gradients if the job needs them, in `precision` and in float64.

    The model computes in evaluation mode, so that nothing is drawn; the job's random numbers are
    left alone.
    """
    encoder = subject.encoder
    device = next(encoder.parameters()).device
    waveforms = torch.from_numpy(np.stack([clip, clip[::-1]])).to(device)
    training = encoder.training
    try:
        exact = copy.deepcopy(encoder).eval().double()
        reference = _states_and_gradients(exact, waveforms.double(), "float32", subject.gradients)
        values = _states_and_gradients(encoder.eval(), waveforms, precision, subject.gradients)
    finally:
        encoder.train(training)
    errors = [
        {name: _error(part.get(name), value) for name, value in _felt(true).items()}
        for part, true in zip(values, reference, strict=True)
    ]
    fault, fault_error = "", 0.0
    for kind, found, limit in zip(("", "the gradient of "), errors, LIMITS[precision], strict=True):
        wrong = [name for name, error in found.items() if not error <= limit]
        if wrong and not fault:
            # states go wrong from the first wrong layer on, gradients from the last one down
            name = wrong[-1] if kind else wrong[0]
            fault, fault_error = kind + name, found[name]
    states, gradients = (max(found.values(), default=0.0) for found in errors)
    return Finding(precision, states, gradients, fault, fault_error)


def _states_and_gradients(
    encoder: SpeechEncoder, waveforms: Tensor, precision: str, gradients: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """States by layer and gradients by weight, of a loss that every state takes part in.

    Weights are matrices and convolutions. The gradients of biases, norms and WavLM's position gates
    are sums of terms that nearly cancel: rounding alone changes them by a third.
    """
    with torch.set_grad_enabled(gradients), autocast(precision, waveforms.device.type):
        states = {_layer_name(layer): state for layer, state in encoder.iterate(waveforms)}
    values = {name: state.detach() for name, state in states.items()}
    if not gradients:
        return values, {}
    generator = torch.Generator().manual_seed(0)
    loss = torch.zeros((), dtype=waveforms.dtype, device=waveforms.device)
    for state in states.values():
        weights = torch.randn(state.shape, generator=generator).to(loss)
        loss = loss + (state.to(loss) * weights).mean()
    parameters = {
        name: parameter
        for name, parameter in encoder.named_parameters()
        if parameter.requires_grad and parameter.ndim > 1 and "rel_pos" not in name
    }
    scale = 1024.0 if precision == "fp16" else 1.0  # as a loss scaler does
    derivatives = torch.autograd.grad(loss * scale, list(parameters.values()), allow_unused=True)
    return values, {
        name: gradient / scale
        for name, gradient in zip(parameters, derivatives, strict=True)
        if gradient is not None and gradient.numel()
    }


def _layer_name(layer: int | str) -> str:
    if layer == "projection":
        return "the feature projection"
    return f"state {layer}" if layer else "state 0 (after the positional convolution)"


def _felt(references: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without those that are rounding only: attention's key biases have no gradient at all."""
    sizes = {name: float(value.abs().max()) for name, value in references.items()}
    largest = max(sizes.values(), default=0.0)
    return {name: value for name, value in references.items() if sizes[name] > 1e-9 * largest}


def _error(value: Tensor | None, reference: Tensor) -> float:
    return float("inf") if value is None else difference(value, reference)


def difference(value: Tensor, reference: Tensor) -> float:
    """The largest relative error of any row or column, so that a few lost ones are noticed.

    A row's error is relative to its own norm, or to that of a mean row where its own is smaller.
    Vectors are compared as a whole; NaN is infinitely wrong.
    """
    reference = reference.double()
    error = value.double() - reference
    if not bool(torch.isfinite(error).all()):
        return float("inf")
    if reference.ndim < 2:
        return float(error.norm() / reference.norm())
    rows = error.flatten(0, -2), reference.flatten(0, -2)
    result = 0.0
    for axis in (0, 1):
        wrong, norms = (part.norm(dim=axis) for part in rows)
        mean = norms.square().mean().sqrt()
        result = max(result, float((wrong / norms.maximum(mean)).max()))
    return result
