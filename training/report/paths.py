"""Keeps what is nobody else's business out of a model card: where files lay on the machine that trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


def without_paths(text: str, *values: Any) -> str:
    """``text`` with the last part only of each path to a file or a folder that is somewhere in ``values``."""
    paths = {value for value in _strings(values) if _is_local(value)}
    for path in sorted(paths, key=len, reverse=True):
        text = text.replace(path, Path(path).name)
    return text


def _strings(values: Any) -> Iterator[str]:
    if isinstance(values, str):
        yield values
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from _strings(value)
    elif isinstance(values, Sequence):
        for value in values:
            yield from _strings(value)


def _is_local(value: str) -> bool:
    """Whether it is written as a path with folders, and such a file or folder is there."""
    if "\n" in value or not ("/" in value or "\\" in value):
        return False
    try:
        path = Path(value).expanduser()
        return bool(path.name) and (path.is_absolute() or path.exists())
    except (OSError, ValueError, RuntimeError):  # too long for a name, or nobody's home
        return False
