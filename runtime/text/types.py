"""What the runtime hands to the front doors: text with its tokens, and how it ended."""

from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class TokenText:
    """A token of the answer with its exact bytes and, when asked for, log-probabilities (nats)."""

    id: int
    bytes: bytes
    logprob: float | None = None
    top: tuple["TokenText", ...] = ()

    @property
    def text(self) -> str:
        """The token as text; bytes that are no UTF-8 by themselves come out as U+FFFD."""
        return self.bytes.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Delta:
    """Text that is certain to be part of the answer. Either string may be empty.

    ``tokens`` are the tokens that this delta brought (only when log-probabilities were asked for).
    """

    content: str = ""
    reasoning: str = ""
    tokens: tuple[TokenText, ...] = ()


@dataclass(slots=True)
class Usage:
    """Token counts of one request; ``completion_tokens`` is cut where the text is cut."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(slots=True)
class Timing:
    """Seconds on the monotonic clock; None until it happened."""

    started_s: float
    first_token_s: float | None = None
    finished_s: float | None = None

    @property
    def ttft_s(self) -> float | None:
        """Time from the request to its first token."""
        return None if self.first_token_s is None else self.first_token_s - self.started_s


@dataclass(slots=True)
class Answer:
    """A whole answer: what concatenating the deltas gives, and how it ended."""

    content: str = ""
    reasoning: str = ""
    tokens: list[TokenText] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stop_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
