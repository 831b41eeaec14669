"""Stages of long work on the terminal: a bar with the remaining time, or one line a stage where nobody watches."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TextIO

from ...converters.progress import Advance


class TerminalProgress:
    """Draws on standard error. Where that is no terminal, a stage is one line when it ends."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._is_live = self._stream.isatty() and not quiet
        console = Console(file=self._stream, markup=False, emoji=False, highlight=False)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(compact=True),
        )
        self._bars = Progress(*columns, console=console, disable=not self._is_live, transient=True)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()

    @contextmanager
    def stage(self, description: str, total: int | None = None, unit: str = "") -> Iterator[Advance]:
        """A bar while the stage runs; a line with its seconds when it has ended well."""
        started = time.monotonic()
        task = self._bars.add_task(description, total=total)
        try:
            yield lambda amount: self._bars.advance(task, amount)
        finally:
            self._bars.remove_task(task)
        self.say(f"{description}{_amount(total, unit)} in {time.monotonic() - started:.1f} s")

    def say(self, line: str) -> None:
        """A line of its own, above the bars."""
        if self._is_live:
            self._bars.console.print(line, soft_wrap=True)
        elif not self._quiet:
            self._stream.write(f"{line}\n")
            self._stream.flush()


def _amount(total: int | None, unit: str) -> str:
    if total is None or not unit:
        return ""
    if unit == "bytes":
        from rich.filesize import decimal

        return f", {decimal(total)},"
    return f", {total:,} {unit},"
