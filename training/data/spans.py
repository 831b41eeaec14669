"""Which part of a rendered conversation the assistant writes: its answers, each with the text that ends its turn.

An answer is found by rendering the conversation once more with a word in its place: what stands before and after the
word stands before and after the answer. What the assistant writes begins behind the prompt that asks for the answer,
where the template renders that as the beginning of the conversation, so reasoning counts; and it goes on to the end of
the turn, which the model has to learn to write. A template that marks with ``{% generation %}`` what the assistant
writes is taken at its word.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...runtime.chat.builtin import builtin_source
from ...runtime.chat.end_of_turn import derive_end_of_turn
from ...runtime.chat.template import ChatTemplate
from ...runtime.errors import RequestError
from .examples import Message, Unusable

Span = tuple[int, int]

_WORD = "Zq4answer7Kd"
_MARKS = re.compile(r"\{%[-+]?\s*generation\b")


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as text, up to where the assistant last stopped; ``spans`` are what it wrote. ``is_ended``:
    whether the last of them ends with an end of turn; if not, a token has to say that it is over."""

    text: str
    spans: list[Span]
    is_ended: bool


class TemplateSpans:
    """A template that knows what of its text the assistant writes."""

    def __init__(self, source: str, *, bos_token: str | None, eos_token: str | None) -> None:
        self.source = source
        self.bos_token = bos_token
        self.eos_token = eos_token
        self.template = ChatTemplate(source, bos_token=bos_token, eos_token=eos_token)

    @cached_property
    def end_of_turn(self) -> str | None:
        """The text that ends a turn, without white space around it."""
        found = derive_end_of_turn(self.template)
        return found.strip() if found else None

    @cached_property
    def shows_reasoning(self) -> bool:
        """Whether the reasoning of an answer is rendered apart from it."""
        asked: list[Message] = [{"role": "user", "content": "Hello"}]
        answer: Message = {"role": "assistant", "content": "Hello", "reasoning_content": _WORD}
        try:
            return _WORD in self._render([*asked, answer])
        except Unusable:
            return False

    def render(self, messages: Sequence[Message]) -> Rendered:
        """Unusable when the template refuses the conversation or leaves its answers out."""
        if _MARKS.search(self.source):
            text, spans = self._marked(messages)
        else:
            text = self._render(messages)
            answers = [idx for idx, message in enumerate(messages) if message["role"] == "assistant"]
            spans = [span for idx in answers if (span := self._span(text, messages, idx)) is not None]
        if not spans:
            raise Unusable("the chat template leaves its answers out")
        stops = [self._stop(text, stop) for _, stop in spans]
        ended = stops[-1] > spans[-1][1] or self._is_end(text[spans[-1][0] : spans[-1][1]])
        last = stops[-1] if ended else len(text)
        whole = [(start, stop) for (start, _), stop in zip(spans, [*stops[:-1], last], strict=True)]
        return Rendered(text[:last], whole, ended)

    def _render(self, messages: Sequence[Message], *, is_prompt: bool = False) -> str:
        try:
            return self.template.render(list(messages), add_generation_prompt=is_prompt)
        except RequestError as error:
            raise Unusable(str(error)) from error

    def _span(self, text: str, messages: Sequence[Message], idx: int) -> Span | None:
        """Of the answer ``idx``, without its end of turn; None where the template leaves it out."""
        replaced = [*messages[:idx], {**messages[idx], "content": _WORD}, *messages[idx + 1 :]]
        head, word, tail = self._render(replaced).partition(_WORD)
        if not word:
            return None
        start, stop = len(head), len(text) - len(tail)
        if start > stop or not (text.startswith(head) and text.endswith(tail)):
            raise Unusable("the chat template writes other things around an answer than around another one")
        return min(start, self._prompt_size(text, messages[:idx], start)), stop

    def _prompt_size(self, text: str, before: Sequence[Message], start: int) -> int:
        """How long the prompt is that asks for the answer at ``start``; ``start`` where it is no beginning of the text
        (it may open a chain of thought that this answer does not have)."""
        try:
            prompt = self._render(before, is_prompt=True)
        except Unusable:
            return start
        return len(prompt) if text.startswith(prompt) else start

    def _stop(self, text: str, stop: int) -> int:
        """Behind the end of turn that follows, with the white space before it; ``stop`` where none follows."""
        rest = text[stop:]
        blank = len(rest) - len(rest.lstrip())
        ends = [end for end in (self.end_of_turn, self.eos_token) if end and rest.startswith(end, blank)]
        return stop + blank + max(map(len, ends)) if ends else stop

    def _is_end(self, answer: str) -> bool:
        ends = [end for end in (self.end_of_turn, self.eos_token) if end]
        return any(answer.rstrip().endswith(end) for end in ends)

    def _marked(self, messages: Sequence[Message]) -> tuple[str, list[Span]]:
        from jinja2 import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        tokens: Any = {"bos_token": self.bos_token or "", "eos_token": self.eos_token or ""}
        try:
            texts, spans = render_jinja_template(
                [list(messages)], chat_template=self.source, return_assistant_tokens_mask=True, **tokens
            )
        except (TemplateError, TypeError, ValueError) as error:
            raise Unusable(f"the chat template refuses it: {' '.join(str(error).split())}") from error
        marks: Any = spans[0]
        return texts[0], [(start, stop) for start, stop in marks if stop > start]


class ChatForms:
    """The templates of a student: one for plain answers, one for answers with a rationale of their own.

    They differ for Memphis-CoT, whose conversations and rationales have headers of their own. Where a template shows no
    reasoning, a rationale opens the answer.
    """

    def __init__(self, source: str, *, bos_token: str | None, eos_token: str | None) -> None:
        memphis = [builtin_source(name) for name in ("memphis", "memphis-rationale")]
        plain, reasoning = memphis if source in memphis else (source, source)
        self.plain = TemplateSpans(plain, bos_token=bos_token, eos_token=eos_token)
        self.reasoning = (
            self.plain if reasoning == plain else TemplateSpans(reasoning, bos_token=bos_token, eos_token=eos_token)
        )

    def render(self, messages: Sequence[Message]) -> Rendered:
        """See ``TemplateSpans.render``."""
        if not any(message.get("reasoning_content") for message in messages):
            return self.plain.render(messages)
        if self.reasoning.shows_reasoning:
            return self.reasoning.render(messages)
        return self.plain.render([_opened(message) for message in messages])


def _opened(message: Message) -> Message:
    reasoning = message.get("reasoning_content")
    if not reasoning:
        return message
    return {"role": message["role"], "content": f"{reasoning}\n{message['content'] or ''}".rstrip()}
