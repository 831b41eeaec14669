"""What every teacher is to the rest of training, wherever its signal comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

    from ..objectives.batch import Spans, TargetSource

Say = Callable[[str], None]
Messages = Sequence[Mapping[str, str | None]]
"""A conversation: ``role`` and ``content`` of each message."""
Kind = Literal["text-cache", "logit-cache", "online"]
Reads = Literal["conversations", "tokens", "nothing"]


class Teacher(Protocol):
    """A source of what the student is to learn.

    ``reads`` says what ``prepare`` is given, and so when it is called: ``conversations`` before they are encoded,
    ``tokens`` after, or ``nothing``. ``prepare`` makes what is missing and leaves what is there, so it may be called
    again, for other rows as well; an interruption loses nothing that was finished. In a run of several processes only
    one prepares, while the others wait.
    """

    kind: ClassVar[Kind]
    reads: ClassVar[Reads]

    def prepare(self, *parts: Iterable[Any]) -> None:
        """Make or complete the cache of all rows that are wanted, in one or several parts. Rows are ``Messages`` (the
        last assistant message, if there is one, is not shown to the teacher), or mappings with ``input_ids``,
        ``labels`` and perhaps ``segments``."""
        ...

    def rows(self, conversations: Dataset) -> Dataset:
        """The rows to train on. A text cache answers anew the last question of each ``messages`` and adds what it
        knows of its answers as columns; rows without an answer, or without a column that the stage needs, are left
        out. The others change nothing."""
        ...

    def targets(self, batch: Mapping[str, Tensor], row: Tensor, position: Tensor) -> TargetSource | None:
        """The distributions at the predictions (``row``, ``position``), both (N,) and in ascending order, of a collated
        batch. None where the teacher only has text."""
        ...

    def spans(self, batch: Mapping[str, Tensor], row: Tensor, position: Tensor) -> Spans | None:
        """Stretches of the batch's text that both tokenizers cover with whole tokens, as far as all of a stretch is
        predicted, and what the teacher gives each; only of a teacher in memory."""
        ...

    def states(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, ...] | None:
        """Hidden states (B, T, D) after the embedding and after each layer; only of a teacher in memory."""
        ...

    def identity(self) -> dict[str, Any]:
        """What the teacher is, and how it was asked: what the model card says, and what a cache belongs to."""
        ...

    def close(self) -> None:
        """Give memory and files back."""
        ...
