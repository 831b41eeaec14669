"""Files that cannot be read or written, as one clear error, whoever met them.

Python raises OSError and shutil an error of its own; torch reports a full disk as a RuntimeError, safetensors and
tokenizers as children of Exception that nobody else knows. Only their words tell what they are about.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from ..runtime.errors import TapsterError, TrainingError

_FULL = (
    "No space left",
    "Disk quota",
    "File too large",
    "PytorchStreamWriter",
    "file write",
    "unexpected pos",
    "iostream error",
)
"""Said of a full disk; the last four are torch's, which does not ask the system why."""
_OTHERS = ("(os error ", "I/O error")


@contextmanager
def or_a_clear_end_of_files(task: str, then: str = "run the same command again") -> Iterator[None]:
    """Raises TrainingError, ``cannot TASK: what the system said; make room and THEN``, where a file is why. What is
    wrong with it may be something else than too little room: then it is to be mended."""
    try:
        yield
    except Exception as error:
        reason = _about_a_file(error)
        if reason is None:
            raise
        first = "make room" if any(word in reason for word in _FULL) else "mend that"
        raise TrainingError(f"cannot {task}: {reason}; {first} and {then}") from error


def _about_a_file(error: Exception) -> str | None:
    """What the system said of a file, in one line; None where ``error`` is about something else."""
    if isinstance(error, (TapsterError, BrokenPipeError)):  # a broken pipe: nobody reads any more what is said
        return None
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    said = error.args[0][0][-1] if isinstance(error, shutil.Error) and isinstance(error.args[0], list) else str(error)
    if isinstance(error, OSError) or any(word in said for word in (*_FULL, *_OTHERS)):
        return " ".join(said.split()) or type(error).__name__
    return None
