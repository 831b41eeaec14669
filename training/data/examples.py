"""What a source holds, whatever its form: conversations and documents."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Message = dict[str, str | None]
"""``role`` and ``content``; ``reasoning_content`` where the way to an answer stands apart from it."""


class Unusable(ValueError):
    """A row that cannot be learnt from, and why. It is left out, counted and said."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns that end with the assistant's. ``columns``: numbers that are known of it."""

    messages: Sequence[Message]
    columns: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Document:
    """Running text, all of it to be learnt."""

    text: str
    columns: Mapping[str, float] = field(default_factory=dict)


Example = Conversation | Document


def question_of(messages: Sequence[Message]) -> list[Message]:
    """The turns before the last answer: what a teacher is asked."""
    last = max((idx for idx, message in enumerate(messages) if message["role"] == "assistant"), default=len(messages))
    return list(messages[:last])


def answer_of(messages: Sequence[Message]) -> Message:
    """The last answer. Unusable where there is none."""
    answers = [message for message in messages if message["role"] == "assistant"]
    if not answers:
        raise Unusable("it has no answer of an assistant")
    return answers[-1]
