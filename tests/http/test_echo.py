"""Log-probabilities of plain completions: their shape, and that they belong to the text."""

import math
from typing import Any

import httpx
import pytest
from request_bodies import completion

PROMPT = "The capital of France is Paris. Ünïcode: 🎉!"


def logprobs_of(http: httpx.Client, **changes: Any) -> tuple[str, dict[str, Any]]:
    """The text and the log-probabilities of the first choice."""
    choice = http.post("/v1/completions", json=completion(**changes)).json()["choices"][0]
    return choice["text"], choice["logprobs"]


@pytest.mark.parametrize("max_tokens", [0, 3])
def test_a_scored_prompt(http: httpx.Client, max_tokens: int) -> None:
    text, logprobs = logprobs_of(http, prompt=PROMPT, echo=True, logprobs=2, max_tokens=max_tokens)
    ids = http.post("/tokenize", json={"content": PROMPT, "add_special": True}).json()["tokens"]
    assert text.startswith(PROMPT)
    assert {len(logprobs[key]) for key in logprobs} == {len(ids) + max_tokens}
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    assert all(value <= 0 for value in logprobs["token_logprobs"][1:])
    for token, value, top in list(
        zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True)
    )[1:]:
        assert top[token] == value
        assert 2 <= len(top) <= 3
        assert sum(math.exp(one) for one in top.values()) <= 1.0001


def test_tokens_stand_where_their_offsets_say(http: httpx.Client) -> None:
    text, logprobs = logprobs_of(http, prompt=PROMPT, echo=True, logprobs=0, max_tokens=4)
    for token, offset in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        if not token.startswith("bytes:"):
            assert text[offset : offset + len(token)] == token
    assert any(token.startswith("bytes:") for token in logprobs["tokens"])


def test_an_unlikely_word_scores_lower(http: httpx.Client) -> None:
    def score(prompt: str) -> float:
        _, logprobs = logprobs_of(http, prompt=prompt, echo=True, logprobs=0, max_tokens=0)
        return logprobs["token_logprobs"][-1]

    assert score("The capital of France is Paris") > score("The capital of France is spoon") + 2


def test_token_ids_are_scored_as_they_are(http: httpx.Client) -> None:
    ids = http.post("/tokenize", json={"content": "one two three"}).json()["tokens"]
    text, logprobs = logprobs_of(http, prompt=ids, echo=True, logprobs=0, max_tokens=0)
    assert text == "one two three"
    assert len(logprobs["tokens"]) == len(ids)


def test_without_echo_only_the_new_tokens_are_scored(http: httpx.Client) -> None:
    text, logprobs = logprobs_of(http, prompt="One, two, three,", logprobs=1, max_tokens=3)
    assert "".join(logprobs["tokens"]) == text
    assert logprobs["text_offset"][0] == 0
    assert None not in logprobs["token_logprobs"]
