"""Where artifacts grow: a hidden folder beside the target, on the same disk, gone at the end whatever happens.

A finished artifact is moved to its name in one step, so nobody ever sees half of one. What a killed process left
behind is swept away by the next that works there.
"""

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..runtime.errors import ConversionError

_PREFIX = ".tapster-"


@contextmanager
def workspace(folder: Path) -> Iterator[Path]:
    """A new folder inside ``folder``, which is made if need be. Removed at the end, also after Ctrl-C; so are the
    folders made for it in which nothing has been put."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        path = Path(tempfile.mkdtemp(prefix=f"{_own_prefix()}{os.getpid()}-", dir=folder))
    except OSError as error:
        raise ConversionError(
            f"cannot write into {folder}: {error.strerror}; choose another place with --out"
        ) from error
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):  # it holds something, as it should
            for parent in missing:
                parent.rmdir()


def _own_prefix() -> str:
    return f"{_PREFIX}{platform.node()}-"


def _sweep(folder: Path) -> None:
    """Remove what processes of this machine that are no more have left behind."""
    import psutil

    for path in folder.glob(f"{_own_prefix()}*"):
        number = path.name.removeprefix(_own_prefix()).partition("-")[0]
        if number.isdigit() and not psutil.pid_exists(int(number)):
            shutil.rmtree(path, ignore_errors=True)


def deliver(made: Path, target: Path, *, replace: bool) -> None:
    """Move what was made to its name. With ``replace`` what was there goes at the last moment, not before."""
    if (target.exists() or target.is_symlink()) and not replace:
        raise ConversionError(f"{target} has appeared meanwhile: it is left alone, give --force to replace it")
    if target.is_dir():
        target.replace(made.with_name(f"{made.name}.old"))  # goes with the workspace
    made.replace(target)


def forget(*paths: Path) -> None:
    """Remove what an earlier run rejected, now that this one has made it well."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def require_space(folder: Path, num_bytes: int, what: str) -> None:
    """ConversionError when the disk under ``folder`` has less than ``num_bytes`` free."""
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise ConversionError(
            f"{what} needs {num_bytes / 1e9:.1f} GB in {folder} and {free / 1e9:.1f} GB are free: "
            f"make room, or choose another place with --out"
        )
