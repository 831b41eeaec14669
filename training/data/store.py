"""Data sets as Arrow files in the run's folder: written once by streaming, then mapped, so that they need no memory."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime.errors import TrainingError

if TYPE_CHECKING:
    from datasets import Dataset, Features


def key_of(*parts: object) -> str:
    """A short name for what a file was made from: the same parts, the same name."""
    text = json.dumps(parts, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stored_rows(path: Path, features: Features, rows: Iterable[Mapping[str, Any]]) -> Dataset:
    """The rows as a data set in ``path``, which is read instead of ``rows`` if it is there. TrainingError when there is
    no room."""
    from datasets import Dataset

    if not path.is_file():
        with _growing(path) as growing:
            _write(growing, features, rows)
    return Dataset.from_file(str(path))


@contextmanager
def _growing(path: Path) -> Iterator[Path]:
    """A file beside ``path`` that is renamed when it is whole, so that an interruption leaves nothing half."""
    growing = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield growing
        growing.replace(path)
    except OSError as error:
        raise TrainingError(f"cannot write the training rows to {path}: {error.strerror or error}") from error
    finally:
        if growing.is_file():
            growing.unlink()


def _write(path: Path, features: Features, rows: Iterable[Mapping[str, Any]]) -> None:
    from datasets.arrow_writer import ArrowWriter

    with ArrowWriter(features=features, path=str(path)) as writer:
        for row in rows:
            writer.write(dict(row))
        writer.finalize()


def content_key(data: Dataset) -> str:
    """What a data set holds: ``datasets`` follows it from the file through every change."""
    return data._fingerprint


def digest(data: Dataset) -> str:
    """SHA-256 of every value, row by row: equal for equal rows, wherever they are stored."""
    found = hashlib.sha256(json.dumps([data.column_names, len(data)]).encode())
    for table in data.with_format("arrow").iter(batch_size=1024):
        for name in data.column_names:
            column = table[name].combine_chunks()  # type: ignore[index]  a column by its name
            found.update(str(column.type).encode())
            if hasattr(column, "value_lengths"):
                found.update(column.value_lengths().to_numpy().tobytes())
                column = column.flatten()
            found.update(column.to_numpy(zero_copy_only=False).tobytes())
    return found.hexdigest()


def kept_notes(path: Path, notes: list[str]) -> list[str]:
    """What was left out of the rows in ``path``. It is known only while they are made, so it is kept beside them. Kept
    notes that cannot be read are replaced."""
    place = path.with_suffix(".json")
    with suppress(FileNotFoundError, ValueError):
        return json.loads(place.read_text("utf-8"))
    with _growing(place) as growing:
        growing.write_text(json.dumps(notes), "utf-8")
    return notes
