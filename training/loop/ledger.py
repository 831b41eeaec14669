"""What happened since the last line of metrics: sums over micro-batches, and over processes when they are asked for."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping

import torch

from .together import sum_up


class Ledger:
    """Terms arrive as parts of a global batch's value, so over a step they add up, and over steps they are averaged."""

    def __init__(self) -> None:
        self._latest: dict[str, float] = {}
        self._begin()

    def _begin(self) -> None:
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._num_steps = 0
        self._since = time.monotonic()

    def add(self, loss: float, terms: Mapping[str, float], weights: Mapping[str, float], num_tokens: int) -> None:
        """A micro-batch."""
        self._sums["loss"] += loss
        self._sums["tokens"] += num_tokens
        for name, value in terms.items():
            self._sums[f"terms/{name}"] += float(value)
        self.note({f"weights/{name}": float(value) for name, value in weights.items()})

    def note(self, values: Mapping[str, float]) -> None:
        """Numbers of which the latest counts, the same on every process."""
        self._latest.update(values)

    def step_done(self) -> None:
        self._num_steps += 1

    def close(self, device: torch.device) -> dict[str, float]:
        """Means over the steps since the last call, over all processes; nothing if there was none."""
        if self._num_steps == 0:
            return {}
        sums = sum_up(self._sums, device)
        elapsed = max(time.monotonic() - self._since, 1e-9)
        tokens = sums.pop("tokens", 0.0)
        values = {name: value / self._num_steps for name, value in sums.items()}
        values |= {"tokens": tokens, "tokens_per_s": tokens / elapsed} | self._latest
        self._latest = {}
        self._begin()
        return values
