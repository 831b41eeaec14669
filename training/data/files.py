"""Files of training data, read row by row: JSON Lines, JSON, Parquet and plain text, packed with gzip or not.

A text file is one document; a JSON file holds a list of objects, alone or as the only list of an object, or one row.
"""

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ...runtime.errors import ConfigError

Row = Mapping[str, Any]
SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet", ".txt", ".md", ".raw")
_IN_FOLDERS = tuple(suffix for suffix in SUFFIXES if suffix != ".md")
"""Without Markdown, which in a folder speaks of the data."""
_ABOUT_DATA = ("readme", "license", "licence", "copying", "notice")
_BATCH_ROWS = 1024


def data_files(path: Path, source: str) -> list[Path]:
    """The file, or the files of a folder, which must be of one kind. ConfigError when there are none."""
    if path.is_file():
        if suffix_of(path) not in SUFFIXES:
            raise ConfigError(f"{source} is no file of training data: known are {', '.join(SUFFIXES)}, also with .gz")
        return [path]
    if not path.is_dir():
        raise ConfigError(
            f"there is no file or folder {source}: give a path, hub:ORG/NAME for the Hub, or sample:NAME for data of "
            f"the package"
        )
    files = sorted(file for file in path.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(path)))
    files = [file for file in files if suffix_of(file) in _IN_FOLDERS and not _is_about_data(file)]
    if not files:
        raise ConfigError(
            f"the folder {source} has no training data: known are {', '.join(_IN_FOLDERS)}, also with .gz; "
            f"name a .md file itself"
        )
    if len(kinds := {suffix_of(file) for file in files}) > 1:
        raise ConfigError(
            f"the folder {source} has files of several kinds ({', '.join(sorted(kinds))}): give one of them"
        )
    return files


def suffix_of(path: Path) -> str:
    """The ending that says what is in a file, below ``.gz``."""
    name = path.name.lower()
    return Path(name.removesuffix(".gz")).suffix


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _is_about_data(path: Path) -> bool:
    return path.name.lower().partition(".")[0] in _ABOUT_DATA


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file. ConfigError for one that is damaged, with its line."""
    suffix = suffix_of(path)
    if suffix == ".parquet":
        yield from _parquet_rows(path)
        return
    try:
        with _opened(path) as file:
            if suffix in (".txt", ".md", ".raw"):
                yield {"text": file.read().decode("utf-8-sig")}
            elif suffix == ".json":
                yield from _json_rows(path, file.read())
            else:
                yield from _lines(path, file)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8") from error
    except (EOFError, gzip.BadGzipFile) as error:
        raise ConfigError(f"{path} is damaged ({error}): download it again") from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error


def _opened(path: Path) -> Any:
    return gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb")


def _lines(path: Path, file: Iterable[bytes]) -> Iterator[Row]:
    for number, line in enumerate(file, 1):
        if line.strip():
            yield _object(path, number, line)


def _object(path: Path, number: int, line: bytes) -> Row:
    try:
        row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else f"{type(error).__name__}"
        raise ConfigError(f"{path}:{number} is no JSON ({reason}): repair or remove the line") from error
    if not isinstance(row, dict):
        raise ConfigError(f"{path}:{number} is a JSON {type(row).__name__}, not an object: each line is one row")
    return row


def _json_rows(path: Path, content: bytes) -> Iterator[Row]:
    """A list of objects; also JSON Lines under the name ``.json``, which many have."""
    text = content.decode("utf-8-sig")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        yield from _lines(path, content.splitlines())
        return
    for number, row in enumerate(_rows_in(value)):
        if not isinstance(row, dict):
            raise ConfigError(f"{path}: entry {number} is {type(row).__name__}, not an object")
        yield row


def _rows_in(value: Any) -> list[Any]:
    """Of a whole JSON file. The turns of one conversation are no rows."""
    if isinstance(value, list):
        return [{"messages": value}] if any(map(_is_turn, value)) else value
    lists = [item for item in value.values() if isinstance(item, list)] if isinstance(value, dict) else []
    return lists[0] if len(lists) == 1 and not any(map(_is_turn, lists[0])) else [value]


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and ({"role", "content"} <= value.keys() or {"from", "value"} <= value.keys())


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise ConfigError(f"{path} is no Parquet file, or damaged ({' '.join(str(error).split())[:120]})") from error
