"""What models and caches hold, as digests: whether something has changed is told by its content, not by its date."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from ...runtime.errors import ModelError
from ...runtime.resolve import resolve_model

MARK = "sha256:"


def folder_digest(folder: Path, *, but: Iterable[str] = ()) -> str | None:
    """Of all files in a folder, by their names and contents, without hidden ones and those in ``but``; None where there
    is none."""
    files = folder_files(folder, but=but)
    if not files:
        return None
    digest = hashlib.sha256()
    for name in files:
        digest.update(f"{name}\0{file_digest(folder / name)}\n".encode())
    return MARK + digest.hexdigest()


def folder_files(folder: Path, *, but: Iterable[str] = ()) -> list[str]:
    """Their paths in the folder, in order."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    shown = (path for path in paths if not any(part.startswith(".") for part in path.parts))
    return sorted(str(path) for path in shown if path.name not in but)


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return MARK + hashlib.file_digest(file, "sha256").hexdigest()


def model_digest(spec: str | None) -> str | None:
    """Of a model on this disk. None for one on the Hub, which counts by its name, and for one that is not there."""
    if spec is None or spec == "student":
        return None
    path = Path(spec).expanduser()
    if (path / "config.json").is_file():
        return folder_digest(path)
    if spec != "demo" and not path.exists():
        return None
    try:
        return file_digest(resolve_model(spec, formats=("gguf",)))
    except ModelError:  # said when it is needed
        return None
