"""Records in numbered JSONL files that only ever grow."""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...runtime.errors import TrainingError
from .files import cannot_write

RECORDS_PER_FILE = 1000


class Journal:
    """The files ``answers-00000.jsonl`` … of a folder.

    Records are on the disk when ``append`` returns. A line that was cut off at the end of a file, by a crash or a full
    disk, is removed when the journal is opened for writing; anything else that cannot be read is an error with the
    file and the line.
    """

    def __init__(self, folder: Path, *, records_per_file: int = RECORDS_PER_FILE) -> None:
        self.folder = folder
        self._limit = records_per_file
        self._count = 0
        """Records in the last file."""

    def paths(self) -> list[Path]:
        return sorted(self.folder.glob("answers-*.jsonl"))

    def heal(self) -> int:
        """Cut off unfinished last lines; how many there were. To be called once, before anything is appended."""
        healed = 0
        for path in self.paths():
            data = path.read_bytes()
            whole = data[: data.rfind(b"\n") + 1]
            if whole != data:
                _cut(path, len(whole))
                healed += 1
            self._count = whole.count(b"\n")
        return healed

    def records(self) -> Iterator[dict[str, Any]]:
        """All records, in the order in which they were made."""
        for path in self.paths():
            with path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if line.endswith(b"\n"):
                        yield _read(line, f"{path}, line {number}")

    def append(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Write records to the disk. TrainingError when that fails; the file is then as it was before."""
        left = list(records)
        while left:
            path = self._current()
            part, left = left[: self._limit - self._count], left[self._limit - self._count :]
            _append(path, "".join(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in part))
            self._count += len(part)

    def _current(self) -> Path:
        paths = self.paths()
        if paths and self._count < self._limit:
            return paths[-1]
        self._count = 0
        number = int(paths[-1].stem.removeprefix("answers-")) + 1 if paths else 0
        return self.folder / f"answers-{number:05}.jsonl"


def finite_json(text: str | bytes) -> Any:
    """JSON without NaN and infinities, which Python would otherwise accept; ValueError."""

    def number(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise ValueError(f"{text} is no finite number")
        return value

    return json.loads(text, parse_constant=number, parse_float=number)


def _read(line: bytes, where: str) -> dict[str, Any]:
    try:
        record = finite_json(line)
        if not isinstance(record, dict) or not isinstance(record.get("id"), str):
            raise ValueError("it is no record of an answer")
    except (ValueError, RecursionError) as error:
        raise TrainingError(f"{where} is damaged ({error}): delete that line, and it is asked for again") from error
    return record


def _append(path: Path, text: str) -> None:
    size = path.stat().st_size if path.exists() else 0
    try:
        with path.open("ab", buffering=0) as file:
            data = memoryview(text.encode())
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
    except OSError as error:
        with suppress(OSError):  # what stays of the line is cut off by ``heal``
            _cut(path, size)
        raise cannot_write(path, error) from error


def _cut(path: Path, size: int) -> None:
    if path.exists():
        os.truncate(path, size)
