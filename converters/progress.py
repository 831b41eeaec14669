"""How long-running work tells what it does: named stages with a size, in whatever unit counts there."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[float], None]
"""Called with the amount of work just done, in the unit of the stage."""


class Progress(Protocol):
    """Shows stages one after another. The command line has one with bars; a library call may leave it out."""

    def stage(self, description: str, total: int | None = None, unit: str = "") -> AbstractContextManager[Advance]:
        """Begin a stage of ``total`` units (None: unknown); it ends with the context."""
        ...


class Silent:
    """Shows nothing."""

    @contextmanager
    def stage(self, description: str, total: int | None = None, unit: str = "") -> Iterator[Advance]:
        """A stage that nobody sees."""
        yield lambda _amount: None
