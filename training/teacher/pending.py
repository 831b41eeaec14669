"""Captured distributions on their way to the disk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...runtime.errors import TrainingError
from .shards import Shards, StoredRow

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

    from .capture import Captured

PREDICTIONS_PER_FILE = 1 << 16
EVERY_S = 5.0
"""A kill loses at most what was captured in so many seconds: the growing file is written anew, whole, each time."""


class Pending:
    """Rows that become a file together. The block's end writes the last ones, also when it ends with an error of
    anything but writing."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._captured: list[Captured] = []
        """Not encoded yet."""
        self._rows: dict[int, StoredRow] = {}
        self._path: Path | None = None
        self._count = 0
        self._written_s = time.monotonic()
        self._is_failed = False

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        if self._is_failed:
            return
        try:
            self._encode()
        finally:
            if self._rows:
                self._finish()

    def __contains__(self, key: int) -> bool:
        return key in self._rows

    def add(self, captured: Sequence[Captured]) -> None:
        """TrainingError for what is no distribution, and when it cannot be written."""
        self._captured += captured  # all at once, so that what befalls one does not lose the others
        self._encode()
        if self._count >= PREDICTIONS_PER_FILE:
            self._finish()
        elif time.monotonic() - self._written_s >= EVERY_S:
            self._write()

    def _encode(self) -> None:
        while self._captured:
            row = self._encoded(self._captured.pop())
            self._rows[row.key] = row
            self._count += len(row.records)

    def _encoded(self, captured: Captured) -> StoredRow:
        encoding = self._shards.encoding
        try:
            records = encoding.encode(captured.ids, captured.log_probs)
        except ValueError as error:
            raise TrainingError(
                f"the teacher gave no distribution for {beginning(captured.row.input_ids)}: {error}"
            ) from error
        kl = encoding.reconstruction_kl(captured.ids, captured.log_probs, records)
        figures = (float(kl.sum()), float(kl.max()), float(captured.mass.sum()))
        return StoredRow(captured.row.key, records, figures)

    def _finish(self) -> None:
        self._shards.add(self._write())
        self._rows, self._count, self._path = {}, 0, None

    def _write(self) -> Path:
        self._is_failed = True
        self._path = self._path or self._shards.next_path()
        self._shards.write(self._path, list(self._rows.values()))
        self._is_failed = False
        self._written_s = time.monotonic()
        return self._path


def beginning(input_ids: np.ndarray) -> str:
    """Of a row, for a message."""
    return f"tokens {', '.join(map(str, input_ids[:8].tolist()))} …"
