"""Examples as tokens and labels.

``labels`` are the tokens themselves where they are to be learnt and -100 elsewhere; they are not shifted. Tokens are
those of the whole rendered text. A token belongs to the assistant if it begins in what the assistant wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ...runtime.errors import ConfigError
from .examples import Document, Example, Message, Unusable
from .spans import ChatForms, Rendered, Span

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100
VERSION = 1
"""Raised when the same example comes to mean other tokens or labels."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A row. ``is_cut``: the example was longer than a sequence, and its end is missing."""

    input_ids: list[int]
    labels: list[int]
    is_cut: bool = False

    @property
    def has_labels(self) -> bool:
        """Whether anything is learnt. The first token is predicted by nothing."""
        return any(label != IGNORED for label in self.labels[1:])


class Encoder:
    """Turns examples into rows of at most ``max_length`` tokens."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        chat_template: str | None = None,
        loss_on: Literal["answers", "all"] = "answers",
    ) -> None:
        """``chat_template``: Jinja; None is the tokenizer's, and without one turns simply follow each other.

        ConfigError for a tokenizer that cannot say which text a token stands for.
        """
        if not tokenizer.is_fast:
            raise ConfigError(
                f"the tokenizer {tokenizer.name_or_path or type(tokenizer).__name__} is a slow one, which does not say "
                f"what text its tokens stand for: save a tokenizer.json with it"
            )
        self.tokenizer: Any = tokenizer
        self.max_length = max_length
        self.loss_on = loss_on
        source = chat_template or tokenizer.chat_template
        eos = tokenizer.eos_token
        self.forms = (
            ChatForms(source, bos_token=_text(tokenizer.bos_token), eos_token=_text(eos))
            if isinstance(source, str)
            else None
        )
        self._before = _added_before(tokenizer)
        self._after = [] if eos is None else [self.tokenizer.eos_token_id]

    def identity(self) -> list[object]:
        """Everything that the rows depend on besides the examples."""
        forms = self.forms and [self.forms.plain.source, self.forms.reasoning.source]
        description = self.tokenizer.backend_tokenizer.to_str()
        return [VERSION, description, self._before, self._after, forms, self.max_length, self.loss_on]

    def rows(self, example: Example) -> list[Encoded]:
        """A conversation is one row, cut at the right; a document as many as it fills. Unusable for one of no use."""
        if isinstance(example, Document):
            return self.document(example.text)
        return [self.conversation(example.messages)]

    def document(self, text: str) -> list[Encoded]:
        """All tokens are learnt, with the end-of-text token behind the last."""
        ids = self._before + self._ids(text) + self._after
        parts = [ids[start : start + self.max_length] for start in range(0, len(ids), self.max_length)]
        return [Encoded(part, list(part)) for part in parts if len(part) > 1]

    def conversation(self, messages: Sequence[Message]) -> Encoded:
        """The assistant's turns are learnt, with what ends them; of ``loss_on="all"`` everything."""
        rendered = self.forms.render(messages) if self.forms else _plain(messages)
        bos = _text(self.tokenizer.bos_token)
        before = [] if bos and rendered.text.startswith(bos) else self._before
        ids, labels = self._labelled(rendered)
        if not rendered.is_ended:
            ids, labels = ids + self._after, labels + self._after
        if self.loss_on == "all":
            labels = list(ids)
        ids, labels = before + ids, [IGNORED] * len(before) + labels
        row = Encoded(ids[: self.max_length], labels[: self.max_length], is_cut=len(ids) > self.max_length)
        if not row.has_labels:
            raise Unusable(f"nothing to learn is left of them in {self.max_length} tokens")
        return row

    def _labelled(self, rendered: Rendered) -> tuple[list[int], list[int]]:
        encoded = self.tokenizer(
            rendered.text,
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        ids: list[int] = encoded["input_ids"]
        learnt = learnt_tokens(encoded["offset_mapping"], rendered.spans)
        return ids, [token if is_learnt else IGNORED for token, is_learnt in zip(ids, learnt, strict=True)]

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]


def learnt_tokens(offsets: Sequence[Span], spans: Sequence[Span]) -> list[bool]:
    """Which tokens begin in a span; both are in ascending order. A token that stands for no text is none of them."""
    learnt, position = [], 0
    for start, stop in offsets:
        while position < len(spans) and spans[position][1] <= start:
            position += 1
        learnt.append(position < len(spans) and stop > start >= spans[position][0])
    return learnt


def shown(tokenizer: PreTrainedTokenizerBase, input_ids: Sequence[int], labels: Sequence[int]) -> str:
    """A row as text, with what is learnt in ⟦brackets⟧: what a loss mask looks like."""
    parts: list[str] = []
    start = 0
    for idx in range(1, len(input_ids) + 1):
        if idx == len(input_ids) or (labels[idx] == IGNORED) != (labels[start] == IGNORED):
            text = tokenizer.decode(list(input_ids[start:idx]), clean_up_tokenization_spaces=False)
            parts.append(str(text) if labels[start] == IGNORED else f"⟦{text}⟧")
            start = idx
    return "".join(parts)


def _plain(messages: Sequence[Message]) -> Rendered:
    """Without a template: the texts one after the other."""
    text, spans = "", []
    for message in messages:
        content = message["content"] or ""
        if message["role"] == "assistant":
            spans.append((len(text), len(text) + len(content)))
        text += content
    return Rendered(text, spans, is_ended=False)


def _added_before(tokenizer: Any) -> list[int]:
    """What the tokenizer puts before a text: mostly nothing or its bos."""
    whole = tokenizer("a")["input_ids"]
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    return next((whole[:at] for at in range(len(whole)) if whole[at : at + len(plain)] == plain), [])


def _text(token: Any) -> str | None:
    return None if token is None else str(token)
