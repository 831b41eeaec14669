"""A teacher that is a collection of distributions over the training text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ...runtime.errors import TrainingError
from .base import Kind, Reads, Say
from .capture import Captured, TokenRow, token_row
from .encoding import Encoding
from .files import claim, claim_source, only_one
from .pending import Pending, beginning
from .progress import Price, Progress
from .shards import Place, Shards, row_key

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

    from ..objectives.batch import Sparse

_ROWS_AT_ONCE = 2048
"""Rows of a data set that are in memory, to be sorted by length."""


class Source(Protocol):
    """What distributions are captured from."""

    def about(self) -> dict[str, Any]:
        """What it is: the files' hash, or the name that its server gives it."""
        ...

    def capture(self, rows: Sequence[TokenRow]) -> Iterator[list[Captured]]:
        """Those that are there together, as soon as they are."""
        ...


class LogitCache:
    """Distributions in ``folder``, of ``size`` entries each. ``open_source`` is called when some are missing; None for
    a cache that was brought along. ``about``, where it can be known without opening the source, is what the source
    would say of itself: a model that has changed since is noticed."""

    kind: ClassVar[Kind] = "logit-cache"
    reads: ClassVar[Reads] = "tokens"

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        open_source: Callable[[], Source] | None,
        *,
        say: Say,
        price: Price | None = None,
        about: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        self.folder = folder
        self._identity = {"kind": self.kind, **identity}
        self._sampled = bool(identity["sampled"])
        self._shards = Shards(folder, Encoding(int(identity["vocab_size"]), int(identity["top_k"])))
        self._open_source = open_source
        self._is_open = False
        self._say, self._price = say, price
        self._about = about
        self._source: dict[str, Any] = {}

    def prepare(self, *parts: Iterable[Any]) -> None:
        """Capture the rows that are missing. Files that are damaged are set aside and made again."""
        if self._open_source is None:
            self._open()
            return
        with only_one(self.folder):
            claim(self.folder, self._identity)
            if self._about is not None:
                self._claim_source(self._about())
            for path in self._shards.heal():
                self._say(f"a damaged file is set aside as {path}; its rows are captured again")
            self._is_open = True
            self._capture(parts)
        self._sum_up()

    def rows(self, conversations: Dataset) -> Dataset:
        return conversations

    def targets(self, batch: Mapping[str, Tensor], row: Tensor, position: Tensor) -> CachedTargets:
        """TrainingError for a row that is not in the cache."""
        self._open()
        rows, positions = row.cpu().numpy(), position.cpu().numpy()
        ids = batch["input_ids"].cpu().numpy()
        places = []
        for idx in sorted(set(rows.tolist())):
            place = self._shards.place(row_key(ids[idx], positions[rows == idx]))
            if place is None:
                raise TrainingError(
                    f"{self.folder} has no distributions for a row of the training text ({beginning(ids[idx])}): was "
                    "it made for other data, or another tokenizer? Run the same command with the teacher at hand"
                )
            places.append(place)
        return CachedTargets(self._shards, places, row.device, is_sample=self._sampled)

    def spans(self, batch: Any, row: Any, position: Any) -> None:
        """Not every label is among the stored tokens."""

    def states(self, batch: Any) -> None:
        """They are not stored."""

    def identity(self) -> dict[str, Any]:
        return {**self._identity, **self._source}

    def close(self) -> None:
        self._shards.close()
        self._is_open = False

    @property
    def statistics(self) -> dict[str, float]:
        """``predictions``, ``bytes_per_prediction``, mean ``reconstruction_kl`` and the largest, and the mean ``mass``
        of the true distributions on the stored tokens (of a sample: on as many of the most likely ones)."""
        self._open()
        sums = self._shards.statistics
        count = sums.get("predictions", 0.0)
        mean = {
            name: sums.get(key, 0.0) / max(count, 1) for name, key in (("reconstruction_kl", "kl"), ("mass", "mass"))
        }
        size = float(self._shards.encoding.record_bytes)
        largest = sums.get("max_kl", 0.0)
        return {"predictions": count, "bytes_per_prediction": size, **mean, "max_reconstruction_kl": largest}

    def _open(self) -> None:
        if not self._is_open:
            self._shards.open()
            self._is_open = True

    def _claim_source(self, about: dict[str, Any]) -> None:
        self._source = about
        claim_source(self.folder, about)

    def _opened(self) -> Source:
        assert self._open_source
        source = self._open_source()
        self._claim_source(source.about())
        return source

    def _capture(self, parts: Sequence[Iterable[Any]]) -> None:
        """Memory is bounded: rows come and go in portions."""
        total = sum(len(part) for part in parts if isinstance(part, Sized))
        progress, source = Progress("teacher", total, 0, self._say, self._price), None
        pending = Pending(self._shards)
        with progress.shown(), pending:
            for portion in _portions(chain.from_iterable(parts)):
                rows = [row for row in portion if row is not None]
                missing = {row.key: row for row in rows if row.key not in self._shards and row.key not in pending}
                if missing:
                    source = source or self._opened()
                    for captured in source.capture(list(missing.values())):
                        pending.add(captured)
                        num_tokens = sum(len(one.row.input_ids) for one in captured)
                        progress.add(0, num_tokens, num_tokens)
                progress.add(len(portion), 0)

    def _sum_up(self) -> None:
        found = self.statistics
        what = "shares drawn at random" if self._sampled else "top log-probabilities"
        self._say(
            f"{found['predictions']:.0f} predictions in {self.folder}: {self._shards.encoding.size} {what} in "
            f"{found['bytes_per_prediction']:.0f} bytes each; reconstruction KL {found['reconstruction_kl']:.2g} nats "
            f"(at most {found['max_reconstruction_kl']:.2g}); the most likely ones hold {found['mass']:.2%} of the mass"
        )


class CachedTargets:
    """The stored distributions of a batch, read by the chunk."""

    def __init__(self, shards: Shards, places: Sequence[Place], device: Any, *, is_sample: bool) -> None:
        self._shards, self._places = shards, places
        self._device, self._is_sample = device, is_sample

    def chunk(self, part: slice) -> Sparse:
        import numpy as np
        import torch

        from ..objectives.batch import Sparse

        read = [self._shards.read(place, inner) for place, inner in self._within(part)]
        ids, log_probs = (np.concatenate(some) for some in zip(*read, strict=True))
        return Sparse(
            torch.from_numpy(ids).to(self._device), torch.from_numpy(log_probs).to(self._device), self._is_sample
        )

    def _within(self, part: slice) -> Iterator[tuple[Place, slice]]:
        """Which parts of which rows ``part`` is."""
        begin = 0
        for place in self._places:
            count = place.stop - place.start
            start, stop = max(part.start - begin, 0), min(part.stop - begin, count)
            if start < stop:
                yield place, slice(start, stop)
            begin += count


def _portions(rows: Iterable[Any]) -> Iterator[list[TokenRow | None]]:
    portion: list[TokenRow | None] = []
    for row in rows:
        portion.append(token_row(row))
        if len(portion) == _ROWS_AT_ONCE:
            yield portion
            portion = []
    if portion:
        yield portion
