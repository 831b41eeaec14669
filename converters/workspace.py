"""Where artifacts grow: a hidden folder beside the target, on the same disk, gone at the end whatever happens.

A finished artifact is moved to its name in one step, so nobody ever sees half of one.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..runtime.errors import ConversionError

_PREFIX = ".tapster-"


@contextmanager
def workspace(folder: Path) -> Iterator[Path]:
    """A new folder inside ``folder``, which is made if need be. Removed at the end, also after Ctrl-C."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=folder))
    except OSError as error:
        raise ConversionError(
            f"cannot write into {folder}: {error.strerror}; choose another place with --out"
        ) from error
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def deliver(made: Path, target: Path, *, replace: bool) -> None:
    """Move what was made to its name. With ``replace`` what was there goes at the last moment, not before."""
    if target.is_dir() and replace:
        shutil.rmtree(target)
    elif target.exists() and not replace:
        raise ConversionError(f"{target} has appeared meanwhile: it is left alone, give --force to replace it")
    made.replace(target)


def require_space(folder: Path, num_bytes: int, what: str) -> None:
    """ConversionError when the disk under ``folder`` has less than ``num_bytes`` free."""
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise ConversionError(
            f"{what} needs {num_bytes / 1e9:.1f} GB in {folder} and {free / 1e9:.1f} GB are free: "
            f"make room, or choose another place with --out"
        )
