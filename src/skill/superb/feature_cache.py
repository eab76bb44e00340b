"""The cache that computes each hidden state of an utterance once.

Legend: L states, B utterances, T frames, D width.

A frozen upstream's states never change while heads train. Heads that are linear up to the time mean
(KS, SID, IC, ER) need one number per state, dimension and utterance: mean over T commutes with the
weighted sum and the linear layer, so the means are cached and nothing is approximated. The other
heads need all frames, in half precision, or in float32 where a state is beyond its range. What does
not fit into the cache (a task's `cache_gib`) is computed again whenever it is asked for.
"""

import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from skill.superb.examples import Example
from skill.superb.upstream import Upstream
from skill.utils.errors import SkillError
from skill.utils.progress import track


class FeatureCache:
    """States of examples, computed once where they fit into the cache.

    With `pooled`, the states are means over time: `batch` gives [L, B, D] and no lengths matter;
    otherwise [L, B, T, D], zero behind each utterance's frames.
    """

    def __init__(
        self,
        upstream: Upstream,
        pooled: bool,
        cache_bytes: float = 2**30,
        batch_seconds: float = 40.0,
    ) -> None:
        self.upstream, self.pooled = upstream, pooled
        self.batch_seconds, self.bytes_left = batch_seconds, cache_bytes
        self.dtype = torch.float32 if pooled else torch.float16
        self.cached: dict[str, Tensor] = {}
        self.audio_seconds = 0.0

    def _compute(self, examples: Sequence[Example]) -> Iterator[tuple[Example, Tensor]]:
        """Yield each example with its states, longest first, in batches of similar length."""
        pending = sorted(examples, key=lambda example: -example.samples)
        while pending:
            size = max(1, int(self.batch_seconds * 16000 // max(pending[0].samples, 1)))
            group, pending = pending[:size], pending[size:]
            waveforms = [example.read() for example in group]
            for example, waveform in zip(group, waveforms, strict=True):
                if self.upstream.frames(len(waveform)) < 1:
                    raise SkillError(f"{example.id}: {len(waveform)} samples are too short")
            self.audio_seconds += sum(len(waveform) for waveform in waveforms) / 16000
            for example, states in zip(group, self.upstream(waveforms), strict=True):
                if not torch.isfinite(states).all():
                    raise SkillError(f"{example.id}: the upstream's states are not finite")
                yield example, states.mean(dim=1) if self.pooled else states

    def prepare(self, examples: Sequence[Example], label: str) -> None:
        """Fill the cache as far as there is room; longest first, so that batches stay even.

        `label` is whose progress is shown.
        """
        missing = {example.id: example for example in examples if example.id not in self.cached}
        fitting = []
        for example in missing.values():
            need = self._bytes(example)
            if need <= self.bytes_left:
                self.bytes_left -= need
                fitting.append(example)
        began, before = time.monotonic(), self.audio_seconds
        with track(len(fitting), f"{label} features") as progress:
            for done, (example, states) in enumerate(self._compute(fitting), start=1):
                stored = self._stored(states)
                self.bytes_left -= stored.nbytes - self._bytes(example)  # more in float32
                self.cached[example.id] = stored
                speed = (self.audio_seconds - before) / (time.monotonic() - began)
                progress.update(done, audio_per_second=speed)

    def _bytes(self, example: Example) -> int:
        frames = 1 if self.pooled else max(self.upstream.frames(example.samples), 1)
        return frames * self.upstream.states * self.upstream.width * self.dtype.itemsize

    def _stored(self, states: Tensor) -> Tensor:
        """A copy in the cache's precision, or in float32 where a state is beyond its range."""
        stored = states.to(self.dtype, copy=True)
        return stored if torch.isfinite(stored).all() else states.float().clone()

    def batch(self, examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
        """States of `examples` in their order, and the frames of each [B]."""
        missing = [example for example in examples if example.id not in self.cached]
        fresh = {example.id: states for example, states in self._compute(missing)}
        device = self.upstream.device
        states_of = [fresh.get(e.id, self.cached.get(e.id)) for e in examples]
        parts = [states for states in states_of if states is not None]
        if self.pooled:
            ones = torch.ones(len(parts), dtype=torch.long)
            return torch.stack([p.to(device) for p in parts], dim=1).float(), ones
        lengths = torch.tensor([states.shape[1] for states in parts])
        shape = (self.upstream.states, len(parts), int(lengths.max()), self.upstream.width)
        padded = torch.zeros(shape, device=device)
        for number, states in enumerate(parts):
            padded[:, number, : states.shape[1]] = states
        return padded, lengths
