"""Greedy answers that every test takes its stops from, asked for once a server."""

from dataclasses import dataclass
from functools import cache

import pytest
from black_box import Api, Prompt, Refused, Reply, Turn


def recital(line: str) -> Prompt:
    """A chat in which the assistant has said a line thrice and is asked to say it again.

    Even a small model is sure of each token then, and of the end. Where two tokens are near to each other, the shape of
    a batch decides between them, and the same question has two greedy answers.
    """
    turns = (Turn("user", "Say the line."), Turn("assistant", line))
    return Prompt("Say the line.", before=turns * 3)


LINE = "The quick brown fox jumps over the lazy dog while seven green elephants drink cold water beside the river."
WIDE_LINE = "Sehr schöne Grüße: 🎉🚀 naïve café, 日本語."
CHATS = (recital(LINE), Prompt("Write one sentence about the sea."), Prompt("What is water made of?"))
"""At least one should have a long answer that is the same every time."""
TEXTS = (Prompt(f"{LINE} " * 3 + "The quick", is_chat=False), Prompt("The capital of France is", is_chat=False))
"""The same for texts to continue."""
SHORT = (CHATS[0], Prompt("What is the capital of Japan?"))
"""At least one should have an answer that ends by itself."""
WIDE = (recital(WIDE_LINE), Prompt("🎉🚀 naïve café, " * 6, is_chat=False))
"""At least one should bring characters of several bytes."""
MIN_PIECES = 12
TEXT_TOKENS = 16
"""Still within the line that is continued."""


@dataclass(frozen=True)
class Plain:
    """An answer without stops, whole and streamed."""

    prompt: Prompt
    max_tokens: int
    whole: Reply
    streamed: Reply
    first: str
    """The text when it was asked for first, with a cold cache."""

    @property
    def is_repeatable(self) -> bool:
        return self.first == self.whole.text == self.streamed.text

    @property
    def text(self) -> str:
        return self.whole.text

    @property
    def pieces(self) -> tuple[str, ...]:
        return self.streamed.pieces


class Answers:
    """Asks and remembers. ``max_tokens`` is the length of an answer to choose stops from."""

    def __init__(self, api: Api, max_tokens: int) -> None:
        self.api = api
        self.max_tokens = max_tokens
        self.plain = cache(self._plain)

    def chat(self) -> Plain:
        """A chat's answer to choose stops from."""
        return self._long(CHATS)

    def text(self) -> Plain:
        """A continued text to choose stops from."""
        return self._long(TEXTS, TEXT_TOKENS)

    def ending(self) -> Plain:
        """An answer that the model ends by itself."""
        for prompt in SHORT:
            answer = self.plain(prompt)
            if answer.is_repeatable and answer.whole.finish_reason == "stop" and answer.text.strip():
                return answer
        return pytest.skip(f"no answer ends by itself within {self.max_tokens} tokens: give more with --tokens")

    def wide(self) -> Plain:
        """An answer with characters of several bytes."""
        for prompt in WIDE:
            answer = self.plain(prompt)
            if answer.is_repeatable and max(map(ord, answer.text), default=0) > 127:
                return answer
        return pytest.skip("the model answers with nothing beyond ASCII")

    def _long(self, prompts: tuple[Prompt, ...], max_tokens: int | None = None) -> Plain:
        for prompt in prompts:
            answer = self.plain(prompt, max_tokens)
            if answer.is_repeatable and len(answer.pieces) >= MIN_PIECES:
                return answer
        tried = [self.plain(prompt, max_tokens) for prompt in prompts]
        seen = "\n".join(f"{one.first!r}\n{one.text!r}\n{one.streamed.text!r}" for one in tried)
        return pytest.fail(f"no long greedy answer is the same at first, again and streamed:\n{seen}", pytrace=False)

    def _plain(self, prompt: Prompt, max_tokens: int | None = None) -> Plain:
        limit = max_tokens or self.max_tokens
        try:
            first = self.api.whole(prompt, max_tokens=limit)
        except Refused as error:
            if error.status == 404:
                pytest.skip(f"the server has no /v1/{prompt.path}")
            raise
        again, streamed = self.api.whole(prompt, max_tokens=limit), self.api.streamed(prompt, max_tokens=limit)
        return Plain(prompt, limit, again, streamed, first.text)
