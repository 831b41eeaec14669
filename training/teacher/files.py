"""Files of a cache: written so that a crash or a full disk leaves either all of one or nothing."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from ...runtime.errors import ConfigError, TrainingError
from ...runtime.json_file import read_json
from ..lock import alone

IDENTITY_FILE = "teacher.identity"
"""JSON; not called so, because the other files of the folder are a data set."""
_SOURCE = "source"


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that appears when all of it is on the disk."""
    unfinished = path.with_name(f".{path.name}.part")
    try:
        with unfinished.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> TrainingError:
    return TrainingError(
        f"cannot write {path}: {error.strerror}; what was finished is kept: make room and run the same command again"
    )


def claim(folder: Path, identity: Mapping[str, Any]) -> None:
    """Make the folder the cache of ``identity``. ConfigError when it holds another one's."""
    found = _identity_in(folder)
    if found is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(folder, error) from error
        _write_identity(folder, identity)
        return
    found.pop(_SOURCE, None)
    _require_same(folder, found, json.loads(json.dumps(identity)))


def claim_source(folder: Path, source: Mapping[str, Any]) -> None:
    """Note what answers for the teacher, once that is known: its files' hash, or the name that its server gives it.
    ConfigError when what is in the folder came of something else."""
    identity = _identity_in(folder) or {}
    if _SOURCE in identity:
        _require_same(folder, identity[_SOURCE], source)
    else:
        _write_identity(folder, {**identity, _SOURCE: source})


def _identity_in(folder: Path) -> dict[str, Any] | None:
    path = folder / IDENTITY_FILE
    return read_json(path, TrainingError) if path.is_file() else None


def _write_identity(folder: Path, identity: Mapping[str, Any]) -> None:
    write_whole(folder / IDENTITY_FILE, json.dumps(identity, indent=2, ensure_ascii=False).encode() + b"\n")


def _require_same(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    if found != wanted:
        raise ConfigError(f"{folder} is the cache of another teacher: {_difference(found, wanted)}; {_WAY_OUT}")


_WAY_OUT = "name another folder with teacher.cache, or delete this one"


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    keys = [key for key in {**found, **wanted} if found.get(key) != wanted.get(key)]
    return ", ".join(f"{key} is {found.get(key)!r} there and {wanted.get(key)!r} here" for key in keys)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Keep a second process from filling the same cache."""
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            busy = f"another process is filling the cache in {folder}: wait for it, or end it"
            stack.enter_context(alone(folder / ".lock", busy))
        except OSError as error:
            raise cannot_write(folder, error) from error
        yield
