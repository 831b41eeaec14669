"""One process at a time at work in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..runtime.errors import TrainingError

_held: set[Path] = set()


@contextmanager
def alone(file: Path, busy: str) -> Iterator[None]:
    """Keep ``file`` locked. Raises TrainingError, ``busy``, while another process does, and OSError where it cannot be
    written. Within the block the same process may ask again. Where files cannot be locked nothing is checked."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    if (file := file.resolve()) in _held:
        yield
        return
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(busy) from None
        except OSError:  # a network disk without locks
            pass
        _held.add(file)
        try:
            yield
        finally:
            _held.remove(file)
