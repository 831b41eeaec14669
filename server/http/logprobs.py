"""Log-probabilities in the two forms that OpenAI gives them."""

from codecs import getincrementaldecoder
from collections.abc import Iterable, Sequence
from typing import Any

from ...runtime.text.types import TokenText

LOWEST = -9999.0
"""Stands for a probability of zero, since JSON has no infinity."""


def chat_logprobs(tokens: Sequence[TokenText], num_reasoning: int) -> dict[str, Any]:
    """``choices[].logprobs`` of a chat. The first ``num_reasoning`` tokens are reasoning, in a list of their own."""
    reasoning, content = tokens[:num_reasoning], tokens[num_reasoning:]
    logprobs: dict[str, Any] = {"content": _entries(content), "refusal": None}
    return {**logprobs, "reasoning_content": _entries(reasoning)} if reasoning else logprobs


def _entries(tokens: Iterable[TokenText]) -> list[dict[str, Any]]:
    return [{**_entry(token), "top_logprobs": [_entry(top) for top in token.top]} for token in tokens]


def _entry(token: TokenText) -> dict[str, Any]:
    return {"token": token.text, "logprob": _finite(token.logprob), "bytes": list(token.bytes)}


def _finite(logprob: float | None) -> float:
    return LOWEST if logprob is None else max(logprob, LOWEST)


class CompletionLogprobs:
    """``choices[].logprobs`` of a plain completion, token after token of one answer.

    ``text_offset`` counts the characters of the text before a token, so all tokens must come, in order.
    ``hidden`` is how many characters they have before the text begins.
    """

    def __init__(self, hidden: int = 0) -> None:
        self._decoder = getincrementaldecoder("utf-8")("replace")
        self._offset = -hidden

    def add(self, tokens: Sequence[TokenText]) -> dict[str, Any]:
        """The object for these tokens, which follow the ones before."""
        return {
            "tokens": [_written(token) for token in tokens],
            "token_logprobs": [None if token.logprob is None else _finite(token.logprob) for token in tokens],
            "top_logprobs": [_top(token) for token in tokens],
            "text_offset": [self._next_offset(token) for token in tokens],
        }

    def _next_offset(self, token: TokenText) -> int:
        offset = max(0, self._offset)
        self._offset += len(self._decoder.decode(token.bytes))
        return offset


def _top(token: TokenText) -> dict[str, float] | None:
    """The most likely tokens and the chosen one, by their text."""
    if token.logprob is None:
        return None
    return {_written(entry): _finite(entry.logprob) for entry in (*token.top, token)}


def _written(token: TokenText) -> str:
    """The token as text, or its bytes spelt out: as keys of an object, pieces of characters must differ."""
    try:
        return token.bytes.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token.bytes)
