"""Linear CKA in one pass, without keeping a frame: sums of products only.

Axes: L states, N frames, D width.
"""

from collections.abc import Sequence
from itertools import combinations_with_replacement
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from skill.similarity.centering import CenteredState, as_states, power_of_two
from skill.similarity.feature_space import feature_sums
from skill.similarity.hsic import (
    KernelSums,
    align,
    from_centred_products,
    hsic,
    mean_square,
    require_spread,
)
from skill.similarity.minibatches import check_batch_size, window_batches, window_frames
from skill.utils.errors import SkillError

_CHUNK = 4096  # frames in one float32 product, whose result is added up in float64


class StreamingCKA:
    """Accumulates states and gives the same CKA as `cka` of all of them at once.

    For each state z, shifted by the mean of its first frames so that large means do no harm, the
    row u = [z, |z|^2, 1] is formed, and sum_i u_i u'_i is added up for each pair of states. The
    mean is known only at the end; but then k_ii = |z_i - m|^2 = c·u_i with c = [-2m, 1, |m|^2], so
    that sum_i k_ii l_ii = c' (sum_i u_i u'_i) c, and the centred product is Z'Z' - n m m'.
    With `standardize` the row is [z, z*z, 1] and c weighs each dimension by 1/variance.

    Frames are gathered to chunks of a fixed size, so the result does not depend on how they were
    divided into updates. Memory: L(L+1)/2 products of D x D in float64 and one chunk, whatever N.

    `estimator`: "unbiased" or "biased"; or "minibatch", the mean of HSIC_1 over batches of
    `batch_size` frames (arXiv:2010.15327, equation 3), which keeps the frames of one window
    (`skill.similarity.minibatches`) and [L, L] sums only.
    """

    def __init__(
        self,
        estimator: str = "unbiased",
        *,
        standardize: bool = False,
        batch_size: int = 256,
        seed: int = 0,
        names: Sequence[str] | None = None,
    ) -> None:
        if estimator not in ("unbiased", "biased", "minibatch"):
            raise SkillError(f"similarity: estimator `{estimator}` is not known")
        if estimator == "minibatch" and standardize:
            raise SkillError("similarity: a minibatch stream cannot be standardised in one pass")
        check_batch_size(batch_size)
        self.estimator, self.standardize, self.names = estimator, standardize, names
        self.batch_size, self.seed = batch_size, seed
        self.chunk = window_frames(batch_size) if estimator == "minibatch" else _CHUNK
        self.frames = 0
        self._first: list[Tensor] = []  # frame of each state
        self._varies: list[bool] = []
        self._scales: list[float] = []
        self._windows = 0
        self._waiting: list[list[Tensor]] = []
        self._waiting_frames = 0
        self._shifts: list[Tensor] = []
        self._moments: dict[tuple[int, int], Tensor] = {}
        self._batches: Tensor | float = 0.0
        self._squares: Tensor | float = 0.0

    def update(self, states: Any) -> None:
        """Add frames: [L, n, D], or a list of [n, D_l]; n may be anything, also 0.

        Raises:
            SkillError: a value is NaN or infinite (the state is named), or the shape changed.
        """
        tensors = as_states(states)
        if not tensors:
            raise SkillError("similarity: no states were given")
        count, start = tensors[0].shape[0], 0
        if not count:
            return
        if not self._first:
            self._first = [tensor[0].clone() for tensor in tensors]
            self._varies = [False] * len(tensors)
        widths = [tensor.shape[1] for tensor in tensors]
        if widths != self._widths:
            raise SkillError(
                f"similarity: states of widths {widths} follow states of widths {self._widths}"
            )
        for index, tensor in enumerate(tensors):
            if not bool(torch.isfinite(tensor.float()).all()):
                raise SkillError(f"similarity: {self._name(index)} is NaN or infinite")
            self._varies[index] |= bool((tensor != self._first[index]).any())
        while start < count:
            stop = min(count, start + self.chunk - self._waiting_frames)
            self._waiting.append([tensor[start:stop].clone() for tensor in tensors])
            self._waiting_frames += stop - start
            start = stop
            if self._waiting_frames == self.chunk:
                self._flush()
        self.frames += count

    def result(self) -> Tensor:
        """CKA of all frames so far: [L, L] in float64. More updates may follow.

        Raises:
            SkillError: as `cka`.
        """
        if self.frames < 4:
            raise SkillError(f"similarity: {self.frames} frames are fewer than four")
        for index, varies in enumerate(self._varies):
            if not varies:
                raise SkillError(f"similarity: {self._name(index)} is constant over all frames")
        if self.estimator == "minibatch":
            values, squares = self._window()
            values, squares = self._batches + values, self._squares + squares
            require_spread(values.diagonal(), squares, self.names)
            return align(values, self.names)
        self._flush()
        sums = self._sums()
        require_spread(hsic(sums, "unbiased").diagonal(), mean_square(sums), self.names)
        return align(hsic(sums, self.estimator), self.names)

    @property
    def _widths(self) -> list[int]:
        return [len(frame) for frame in self._first]

    def _name(self, index: int) -> str:
        return self.names[index] if self.names else f"state {index}"

    def _gather(self) -> list[Tensor]:
        """The frames that wait, [n, D_l] each, less a shift; the first ones set shift and scale."""
        states = [torch.cat(parts) for parts in zip(*self._waiting, strict=True)]
        if not self._shifts:
            for state in states:
                mean = state.double().mean(0)
                shift = mean if state.dtype == torch.float64 else mean.float()
                self._shifts.append(shift)
                self._scales.append(power_of_two(float((state - shift).abs().max())))
        return [
            (state - shift).float() * scale
            for state, shift, scale in zip(states, self._shifts, self._scales, strict=True)
        ]

    def _window(self) -> tuple[Tensor, Tensor]:
        """Sums over the batches of the frames that wait: of HSIC_1 [L, L] and of squares [L]."""
        count = len(self._first)
        values = torch.zeros(count, count, dtype=torch.float64)
        squares = torch.zeros(count, dtype=torch.float64)
        if not self._waiting:
            return values, squares
        states = [
            CenteredState(state, state.new_zeros(()), state.new_zeros(()), None)
            for state in self._gather()
        ]
        frames = self._waiting_frames
        for batch in window_batches(frames, self.batch_size, self.seed, self._windows):
            sums = feature_sums([state.select(batch) for state in states])
            values += len(batch) * hsic(sums, "unbiased")
            squares += len(batch) * mean_square(sums)
        return values, squares

    def _flush(self) -> None:
        if not self._waiting:
            return
        if self.estimator == "minibatch":
            values, squares = self._window()
            self._batches, self._squares = self._batches + values, self._squares + squares
            self._windows += 1
        else:
            self._multiply()
        self._waiting, self._waiting_frames = [], 0

    def _multiply(self) -> None:
        rows = [self._row(state) for state in self._gather()]
        for left, right in combinations_with_replacement(range(len(rows)), 2):
            product = linear(rows[left], rows[right])
            if (left, right) in self._moments:
                self._moments[left, right] += product
            else:
                self._moments[left, right] = product.double()

    def _row(self, z: Tensor) -> Tensor:
        """Shifted frames [n, D] to the rows u as [E, n], as the fastest product wants them."""
        squares = z.square()
        extra = squares if self.standardize else squares.sum(1, keepdim=True)
        return torch.cat([z, extra, torch.ones_like(z[:, :1])], dim=1).T.contiguous()

    def _sums(self) -> KernelSums:
        count, n = len(self._widths), self.frames
        means, scales, forms = [], [], []
        for index, width in enumerate(self._widths):
            products = self._moments[index, index]
            mean = products[:width, -1] / n
            power = products.diagonal()[:width] / n
            variance = power - mean.square()
            weight = torch.ones_like(mean)
            if self.standardize:  # below that, a variance is a rounding error
                weight = torch.where(variance > 1e-7 * power, 1 / variance, 0.0)
            middle = weight if self.standardize else weight[:1]
            last = (weight * mean.square()).sum().reshape(1)
            means.append(mean)
            scales.append(weight.sqrt())
            forms.append(torch.cat([-2 * weight * mean, middle, last]))
        squares, diagonal = torch.zeros(2, count, count, dtype=torch.float64)
        traces = torch.stack([self._moments[i, i][:, -1] @ form for i, form in enumerate(forms)])
        for (a, b), moment in self._moments.items():
            product = moment[: self._widths[a], : self._widths[b]]
            product = torch.addr(product, means[a], means[b], alpha=-n)
            product *= torch.outer(scales[a], scales[b])
            squares[a, b] = squares[b, a] = product.square_().sum()
            diagonal[a, b] = diagonal[b, a] = forms[a] @ moment @ forms[b]
        return from_centred_products(n, squares, diagonal, traces.cpu())
