"""Where rows come from: ``hub:ORG/NAME[:CONFIG][:SPLIT]``, files and folders, ``sample:NAME``, and ``teacher``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ...runtime.errors import ConfigError
from .files import data_files, read_rows
from .store import file_sha256

Row = Mapping[str, Any]
SAMPLES = Path(__file__).parent.parent / "samples"
_SPLIT = re.compile(r"(train|test|validation|valid|dev|eval)\w*(\[.*\])?|.*\[.*\]")
_COLON = re.compile(r":(?![^\[\]]*\])")
"""One that stands in no brackets: a split may be ``train[:5000]``."""
_REVISION = re.compile(r"@([0-9a-f]{40})/")
_SEED, _SHUFFLED = 42, 10_000
"""Of a stream so many rows are in memory, from which the next one is drawn."""


@dataclass(frozen=True)
class Source:
    """``rows`` reads it from the beginning each time; ``fingerprint`` says exactly what it is, for the model card.
    Wanted are ``count`` of its rows behind the ``first`` so many, counted once messages have grown into trees."""

    name: str
    rows: Callable[[], Iterator[Row]]
    fingerprint: dict[str, Any]
    first: int = 0
    count: int | None = None


def sample_names() -> list[str]:
    """Of the data that ship with the package."""
    return sorted(path.stem for path in SAMPLES.iterdir() if path.suffix in (".jsonl", ".txt"))


def open_source(source: str, *, teacher: Path | None = None, max_rows: int | None = None, passed: int = 0) -> Source:
    """A source of a recipe. ``teacher``: the folder of the text cache; ``max_rows``: how many will be wanted, so that
    the Hub's are read as a shuffled stream, without the first ``passed`` of it. ConfigError for one that is not there
    or cannot be reached."""
    kind, _, rest = source.partition(":")
    if kind == "hub":
        return _hub(source, rest, max_rows, passed)
    if kind == "sample":
        return _sample(source, rest)
    if source == "teacher":
        if teacher is None or not teacher.is_dir():
            raise ConfigError(f"the source teacher needs the teacher's text cache, and {teacher} is not there")
        return _files(source, teacher, sorted(teacher.glob("answers-*.jsonl")))
    return _local(source, Path(source).expanduser())


def check_address(source: str) -> None:
    """ConfigError for a source that is written wrong, whether or not it is there."""
    kind, _, rest = source.partition(":")
    if kind == "hub":
        parse_hub(rest)
    elif kind == "sample":
        _sample_file(rest)


def canonical(source: str) -> object:
    """The same for two addresses of the same rows."""
    kind, _, rest = source.partition(":")
    return (kind, parse_hub(rest)) if kind == "hub" else source


def is_changed(fingerprint: Mapping[str, Any]) -> bool:
    """Whether files are not what they were when the fingerprint was taken. Those that are gone, the Hub's, and the
    teacher's answers, to which others are added, are not looked at."""
    files, source = fingerprint.get("files"), fingerprint["source"]
    if not files or source == "teacher":
        return False
    try:
        return open_source(source).fingerprint["files"] != files
    except ConfigError:
        return False


def _sample(source: str, name: str) -> Source:
    return _local(source, _sample_file(name))


def _sample_file(name: str) -> Path:
    names = sample_names()
    if name not in names:
        near = get_close_matches(name, names, n=1)
        hint = f"did you mean sample:{near[0]}?" if near else f"there are {', '.join(names)}"
        raise ConfigError(f"no sample data {name!r}: {hint}")
    return next(path for path in SAMPLES.iterdir() if path.stem == name and path.suffix != ".py")


def _local(source: str, path: Path) -> Source:
    return _files(source, path if path.is_dir() else path.parent, data_files(path, source))


def _files(source: str, folder: Path, files: Sequence[Path]) -> Source:
    digests = {file.relative_to(folder).as_posix(): file_sha256(file) for file in files}
    fingerprint = {"source": source, "files": digests}
    return Source(source, lambda: (row for file in files for row in read_rows(file)), fingerprint)


def _hub(source: str, address: str, max_rows: int | None, passed: int) -> Source:
    name, config, split = parse_hub(address)
    is_stream = max_rows is not None and "[" not in split  # a slice is fetched whole
    data, info = _load(name, config, split, streaming=is_stream)
    revision = next(iter(_REVISION.findall(" ".join(info.download_checksums or {}))), None)
    fingerprint = {"source": source, "split": split, "revision": revision, "licence": info.license or None}
    if not is_stream:
        return Source(source, lambda: iter(data), fingerprint)
    rows = data.shuffle(seed=_SEED, buffer_size=_SHUFFLED)
    said = f"{source} behind its first {passed:,} rows" if passed else source
    return Source(said, lambda: iter(rows), {**fingerprint, "first": passed, "max_rows": max_rows}, passed, max_rows)


def parse_hub(address: str) -> tuple[str, str | None, str]:
    """Name, configuration and split. Of one part behind the name, what looks like a split is one. ConfigError."""
    name, *parts = _COLON.split(address)
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise ConfigError(f"{f'hub:{address}'!r} is no address of a data set: write hub:ORG/NAME[:CONFIG][:SPLIT]")
    if len(parts) > 2:
        raise ConfigError(f"hub:{address} has too many parts: write hub:ORG/NAME[:CONFIG][:SPLIT]")
    if len(parts) == 1:
        parts = ["", parts[0]] if _SPLIT.fullmatch(parts[0]) else [parts[0], ""]
    config, split = parts or ["", ""]
    return name, config or None, split or "train"


def _load(name: str, config: str | None, split: str, *, streaming: bool) -> tuple[Any, Any]:
    import datasets
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

    where = f"hub:{name}" + (f":{config}" if config else "") + f":{split}"
    try:
        data = datasets.load_dataset(name, config, split=split, streaming=streaming)
    except DatasetNotFoundError as error:
        raise ConfigError(
            f"{where}: there is no such data set on the Hub, or it asks for a login ({_line(error)})"
        ) from error
    except (OSError, DatasetGenerationError) as error:
        raise ConfigError(
            f"{where} cannot be fetched ({_line(error)}): connect to the Hub, or give files with --data"
        ) from error
    except (ValueError, RuntimeError, ImportError, KeyError) as error:
        raise ConfigError(f"{where} cannot be opened: {_line(error)}") from error
    return data, data.info


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
