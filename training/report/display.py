"""A stage on the terminal: a bar with the loss and the time left, or a terse line each time where nobody watches."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

_SHOWN = ("learning_rate", "grad_norm", "tokens_per_s")
_SHORT = {"learning_rate": "lr", "grad_norm": "gradient", "tokens_per_s": "tokens/s"}


class Display(Protocol):
    """Shows stages one after another."""

    def say(self, line: str) -> None: ...

    def begin(self, stage: str, total_steps: int, done: int = 0) -> None: ...

    def step(self, step: int) -> None: ...

    def log(self, step: int, values: Mapping[str, float], kind: str) -> None: ...

    def end(self) -> None: ...


class Silent:
    """Shows nothing."""

    def say(self, line: str) -> None:
        """Not said."""

    def begin(self, stage: str, total_steps: int, done: int = 0) -> None:
        """Not shown."""

    def step(self, step: int) -> None:
        """Not shown."""

    def log(self, step: int, values: Mapping[str, float], kind: str) -> None:
        """Not shown."""

    def end(self) -> None:
        """Not shown."""


class Terminal:
    """Draws on standard error; also what ``train`` says goes through it, so that lines stand above the bar."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_live = self._stream.isatty()
        self._bar: Any = None
        self._task: Any = None
        self._stage, self._total, self._done, self._started = "", 0, 0, 0.0

    def say(self, line: str) -> None:
        """A line of its own, above the bar."""
        with self._while_there():
            if self._bar is not None:
                self._bar.console.print(line, soft_wrap=True)
            else:
                self._stream.write(f"{line}\n")
                self._stream.flush()

    def begin(self, stage: str, total_steps: int, done: int = 0) -> None:
        self.end()
        self._stage, self._total, self._done = stage, total_steps, done
        self._started = time.monotonic()
        if self._is_live:
            with self._while_there():
                self._bar = _bar(self._stream)
                self._task = self._bar.add_task(stage, total=total_steps, completed=done, loss="")
                self._bar.start()
        elif done:
            self.say(f"{stage}: on after step {done} of {total_steps}")

    def step(self, step: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def log(self, step: int, values: Mapping[str, float], kind: str) -> None:
        if self._bar is not None and kind == "train":
            if "loss" in values:
                self._bar.update(self._task, loss=f"loss {values['loss']:.4f}")
            return
        self.say(self._line(step, values, kind))

    def end(self) -> None:
        if self._bar is not None:
            with self._while_there():
                self._bar.stop()
            self._bar = None

    @contextmanager
    def _while_there(self) -> Iterator[None]:
        """A terminal may close, and the reader of a pipe end: that is no reason to end a training."""
        try:
            yield
        except OSError:
            self._bar, self._is_live, self._stream = None, False, io.StringIO()

    def _line(self, step: int, values: Mapping[str, float], kind: str) -> str:
        head = f"{self._stage} {step}/{self._total}" + (" held out" if kind == "eval" else "")
        parts = [f"{name.removeprefix('terms/')} {shown(values[name])}" for name in _losses(values)]
        parts += [f"{_SHORT[name]} {shown(values[name])}" for name in _SHOWN if name in values]
        if kind == "train" and (left := self._left_s(step)) is not None:
            parts.append(f"{duration(left)} left")
        return f"{head}  " + "  ".join(parts)

    def _left_s(self, step: int) -> float | None:
        if not self._done < step < self._total:
            return None
        return (time.monotonic() - self._started) / (step - self._done) * (self._total - step)


def _losses(values: Mapping[str, float]) -> list[str]:
    """The loss, and its terms where there are several."""
    terms = [name for name in values if name.startswith("terms/")]
    return (["loss"] if "loss" in values else []) + (terms if len(terms) > 1 or "loss" not in values else [])


def _bar(stream: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TimeRemainingColumn(compact=True),
    )
    return Progress(*columns, console=Console(file=stream, markup=False, emoji=False, highlight=False), transient=True)


def shown(value: float) -> str:
    """A number in at most about four digits that matter: 3.142, 1.2e-05, 12,345."""
    if value and abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """5 s, 3 min, 2.5 h, 12 days."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:,.0f} days"
