"""A teacher that is a collection of distributions over the training text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ...runtime.errors import TrainingError
from .base import Kind, Reads, Say
from .capture import Captured, TokenRow, token_row
from .encoding import Encoding
from .files import claim, only_one
from .progress import Price, Progress
from .shards import PREDICTIONS_PER_FILE, Place, Shards, row_key

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor

    from ..objectives.batch import Sparse

_ROWS_AT_ONCE = 2048
"""Rows of a data set that are in memory, to be sorted by length."""


class Source(Protocol):
    """What distributions are captured from."""

    def capture(self, rows: Sequence[TokenRow]) -> Iterator[Captured]: ...


class LogitCache:
    """Distributions in ``folder``, of ``size`` entries each. ``open_source`` is called when some are missing; None for
    a cache that was brought along."""

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
    ) -> None:
        self.folder = folder
        self._identity = {"kind": self.kind, **identity}
        self._sampled = bool(identity["sampled"])
        self._shards = Shards(folder, Encoding(int(identity["vocab_size"]), int(identity["top_k"])))
        self._open_source = open_source
        self._is_open = False
        self._say, self._price = say, price

    def prepare(self, rows: Iterable[Any]) -> None:
        """Capture the rows that are missing. Files that are damaged are set aside and made again."""
        if self._open_source is None:
            self._open()
            return
        with only_one(self.folder):
            claim(self.folder, self._identity)
            for path in self._shards.heal():
                self._say(f"a damaged file is set aside as {path}; its rows are captured again")
            self._is_open = True
            self._capture(rows)
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
                    f"{self.folder} has no distributions for a row of the training text ({_beginning(ids[idx])}): was "
                    "it made for other data, or another tokenizer? Run the same command with the teacher at hand"
                )
            places.append(place)
        return CachedTargets(self._shards, places, row.device, is_sample=self._sampled)

    def states(self, batch: Any) -> None:
        """They are not stored."""

    def identity(self) -> dict[str, Any]:
        return dict(self._identity)

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

    def _capture(self, rows: Iterable[Any]) -> None:
        """Memory is bounded: rows come and go in portions."""
        assert self._open_source
        total = len(rows) if hasattr(rows, "__len__") else 0  # type: ignore[arg-type]
        progress, source = Progress("teacher", total, 0, self._say, self._price), None
        pending = _Pending(self._shards)
        with progress.shown(), pending:
            for portion in _portions(rows):
                missing = {row.key: row for row in portion if row is not None and row.key not in self._shards}
                if missing:
                    source = source or self._open_source()
                    for captured in source.capture(list(missing.values())):
                        pending.add(captured)
                        progress.add(0, len(captured.row.input_ids), len(captured.row.input_ids))
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


class _Pending:
    """Rows that wait to become a file. The block's end writes the last ones, also when it ends with an error of
    anything but writing."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._is_failed = False
        self._clear()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        if not self._is_failed:
            self._write()

    def add(self, captured: Captured) -> None:
        encoding = self._shards.encoding
        try:
            records = encoding.encode(captured.ids, captured.log_probs)
        except ValueError as error:
            raise TrainingError(
                f"the teacher gave no distribution for {_beginning(captured.row.input_ids)}: {error}"
            ) from error
        kl = encoding.reconstruction_kl(captured.ids, captured.log_probs, records)
        self._keys.append(captured.row.key)
        self._records.append(records)
        self._sums["predictions"] += len(records)
        self._sums["kl"] += float(kl.sum())
        self._sums["mass"] += float(captured.mass.sum())
        self._sums["max_kl"] = max(self._sums["max_kl"], float(kl.max()))
        if self._sums["predictions"] >= PREDICTIONS_PER_FILE:
            self._write()

    def _write(self) -> None:
        if self._keys:
            self._is_failed = True
            self._shards.add(self._keys, self._records, self._sums)
            self._is_failed = False
            self._clear()

    def _clear(self) -> None:
        self._keys: list[int] = []
        self._records: list[np.ndarray] = []
        self._sums = {"predictions": 0.0, "kl": 0.0, "mass": 0.0, "max_kl": 0.0}


def _portions(rows: Iterable[Any]) -> Iterator[list[TokenRow | None]]:
    portion: list[TokenRow | None] = []
    for row in rows:
        portion.append(token_row(row))
        if len(portion) == _ROWS_AT_ONCE:
            yield portion
            portion = []
    if portion:
        yield portion


def _beginning(input_ids: np.ndarray) -> str:
    return f"tokens {', '.join(map(str, input_ids[:8].tolist()))} …"
