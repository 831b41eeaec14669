"""What the worker's thread drives, and where tokens go from there."""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from ..base import Token
from .sequence import EmbeddingJob, LocalSequence


class Sink(Protocol):
    """Where a sequence's tokens go. Called on the scheduler's thread, at most once a sequence and step."""

    def token(self, seq: LocalSequence, token: Token, finish: str | None) -> None:
        """The next token, with the finish reason when it is the last."""
        ...

    def ended(self, seq: LocalSequence, finish: str) -> None:
        """The end without a further token."""
        ...

    def failed(self, seq: LocalSequence, reason: str) -> None:
        """The end by an error that concerns this sequence alone."""
        ...


class Scheduler(Protocol):
    """Sequences that wait and run over one model. It belongs to one thread and knows no event loop.

    It lets go of a sequence whose ``cancelled_at`` is set, keeping that many of its tokens for a later prompt, and
    closes the sampler of one that has ended. Finish reasons are ``eog``, ``length`` and ``cancelled``.
    """

    sink: Sink
    waiting: deque[LocalSequence]
    running: list[LocalSequence]

    def step(self, before_compute: Callable[[], None]) -> None:
        """Advance every running sequence once. ``before_compute`` runs when the step is prepared, so that what the
        last one produced is handed over while the model computes."""
        ...

    def tidy(self) -> bool:
        """Use a moment without work. Returns whether there may be more to do."""
        ...


class Beside(Protocol):
    """Work beside the sequences: texts that wait for their embeddings."""

    jobs: deque[EmbeddingJob]

    def step(self) -> None:
        """Compute a little of the oldest text, so that streams go on in between."""
        ...


class Tuner(Protocol):
    """Something that looks at the machine while the engine rests; see ``threads``."""

    look_every_s: float | None
    current: int

    def rest(self) -> None:
        """The engine is idle: called every ``look_every_s``."""
        ...

    def resume(self) -> None:
        """The engine was idle and has work again."""
        ...
