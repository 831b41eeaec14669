"""How far a cache is: a bar where somebody watches, else a line now and then."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ...runtime.errors import ConfigError
from .base import Say

_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Price:
    """What a million tokens cost, of prompts and of answers, in any currency."""

    prompt: float = 0.0
    answer: float = 0.0

    @classmethod
    def read(cls, text: str) -> "Price":
        """From ``IN,OUT``."""
        try:
            prompt, answer = (float(part) for part in text.split(","))
        except ValueError:
            raise ConfigError(f"--price {text!r} is not IN,OUT: what a million tokens cost, such as 0.5,1.5") from None
        if not (prompt >= 0 and answer >= 0):
            raise ConfigError(f"--price {text!r}: a price is not below 0")
        return cls(prompt, answer)

    def of(self, prompt_tokens: int, answer_tokens: int) -> float:
        return (prompt_tokens * self.prompt + answer_tokens * self.answer) / 1e6


class Progress:
    """Counts what is done, of ``total``. Speed and time left are of what was done here, not of what was there."""

    def __init__(self, what: str, total: int, done: int, say: Say, price: Price | None) -> None:
        self._what, self._total, self._done, self._before = what, total, done, done
        self._say, self._price = say, price
        self._tokens = self._prompt_tokens = 0
        self._started_s = self._said_s = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def add(self, count: int, tokens: int, prompt_tokens: int = 0) -> None:
        """So many more rows are done, of so many tokens."""
        self._done += count
        self._tokens += tokens
        self._prompt_tokens += prompt_tokens
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, about=self.about())
        elif time.monotonic() - self._said_s >= _EVERY_S:
            self._said_s = time.monotonic()
            self._say(f"{self._what}: {self._done} of {self._total}, {self.about()}")

    def about(self) -> str:
        """Speed, cost and time left."""
        passed_s = max(time.monotonic() - self._started_s, 1e-9)
        parts = [f"{self._tokens / passed_s:.0f} tokens/s"]
        share = (self._done - self._before) / max(1, self._total - self._before)
        if self._price:
            cost = self._price.of(self._prompt_tokens, self._tokens)
            parts.append(f"cost {cost:.4g}" + (f" of about {cost / share:.4g}" if share else ""))
        if share:
            parts.append(f"{_duration(passed_s * (1 / share - 1))} left")
        return ", ".join(parts)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Draw while the block runs."""
        if not sys.stderr.isatty():
            yield
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[about]}"),
        )
        with RichProgress(*columns, console=Console(stderr=True)) as self._bar:
            self._task = self._bar.add_task(self._what, total=self._total, completed=self._done, about="")
            try:
                yield
            finally:
                self._bar, bar = None, self._bar
                bar.refresh()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
