"""A stream, put together, is the whole answer: text, log-probabilities, reason and counts."""

from typing import Any

import httpx
import pytest
from request_bodies import chat, completion, events

TEXT = "Hello there, dear Ünïcode 🎉 friend. <|im_en"
PROMPT = f"{TEXT}\n{TEXT}\n"
GRAMMAR = f'root ::= "{TEXT}"'
"""Greedy answers may differ by rounding. This leaves one text, and the prompt leaves one way to spell it."""

CHAT = "/v1/chat/completions"
PLAIN = "/v1/completions"


def whole(http: httpx.Client, url: str, body: dict[str, Any]) -> dict[str, Any]:
    """A whole answer's choice, its text in ``text``, and the token counts."""
    answer = http.post(url, json=body).json()
    choice = answer["choices"][0]
    text = choice["text"] if url == PLAIN else choice["message"]["content"]
    return {**choice, "text": text, "usage": _counts(answer["usage"])}


def streamed(http: httpx.Client, url: str, body: dict[str, Any]) -> dict[str, Any]:
    """The same, put together from the chunks of a stream."""
    options = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, last = events(http.post(url, json={**body, **options}))
    choices = [chunk["choices"][0] for chunk in chunks]
    pieces = [choice["text"] if url == PLAIN else choice["delta"].get("content", "") for choice in choices]
    assert all(choice["finish_reason"] is None for choice in choices[:-1])
    logprobs = [choice["logprobs"] for choice in choices if choice["logprobs"]]
    return {
        **choices[-1],
        "text": "".join(pieces),
        "logprobs": {key: [one for part in logprobs for one in part[key] or ()] for key in logprobs[0]}
        if logprobs
        else None,
        "usage": _counts(last["usage"]),
    }


def told(**changes: Any) -> dict[str, Any]:
    """A chat that ends in the text."""
    messages = [{"role": "user", "content": f"Repeat this: {TEXT}"}]
    return chat(**{"messages": messages, "grammar": GRAMMAR, "max_tokens": 60, **changes})


def shown(**changes: Any) -> dict[str, Any]:
    """A completion that is the text."""
    return completion(**{"prompt": PROMPT, "grammar": GRAMMAR, "max_tokens": 60, **changes})


def _counts(usage: dict[str, Any]) -> list[int]:
    return [usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")]


def _tokens(choice: dict[str, Any]) -> list[tuple[str, float | None]]:
    """The tokens with their log-probabilities, in either form."""
    logprobs = choice["logprobs"]
    if logprobs is None:
        return []
    if "content" in logprobs:
        return [(token["token"], token["logprob"]) for token in logprobs["content"]]
    return list(zip(logprobs["tokens"], logprobs["token_logprobs"], strict=True))


@pytest.mark.parametrize(
    ("url", "body", "finish_reason", "stop_reason", "text"),
    [
        (CHAT, told(), "stop", None, TEXT),
        (CHAT, told(stop=["e", "there", "dear"]), "stop", "e", "H"),
        (CHAT, told(stop="🎉 fr", include_stop_str_in_output=True), "stop", "🎉 fr", TEXT.partition("iend")[0]),
        (CHAT, told(max_tokens=5), "length", None, None),
        (CHAT, told(logprobs=True, top_logprobs=2), "stop", None, TEXT),
        (CHAT, told(logprobs=True, stop="e, d"), "stop", "e, d", "Hello ther"),
        (PLAIN, shown(), "stop", None, TEXT),
        (PLAIN, shown(logprobs=2), "stop", None, TEXT),
        (PLAIN, shown(logprobs=0, echo=True, stop="friend"), "stop", "friend", None),
        (PLAIN, shown(max_tokens=6, logprobs=2, echo=True), "length", None, None),
        (PLAIN, shown(max_tokens=0, logprobs=1, echo=True), "length", None, PROMPT),
        (PLAIN, shown(echo=True), "stop", None, PROMPT + TEXT),
    ],
)
def test_streamed_is_whole(
    http: httpx.Client, url: str, body: dict[str, Any], finish_reason: str, stop_reason: str | None, text: str | None
) -> None:
    one, other = whole(http, url, body), streamed(http, url, body)
    for key in ("text", "finish_reason", "stop_reason", "usage"):
        assert one[key] == other[key]
    assert one["finish_reason"] == finish_reason
    assert one["stop_reason"] == stop_reason
    assert text is None or one["text"] == text
    assert [token for token, _ in _tokens(one)] == [token for token, _ in _tokens(other)]
    for (_, first), (_, second) in zip(_tokens(one), _tokens(other), strict=True):
        assert first == pytest.approx(second, abs=0.5)
    if url == PLAIN and one["logprobs"]:
        assert one["logprobs"]["text_offset"] == other["logprobs"]["text_offset"]


def test_several_answers_in_one_stream(http: httpx.Client) -> None:
    body = chat(n=3, temperature=1.5, seed=-7, max_tokens=10)
    http.post("/v1/chat/completions", json={**body, "max_tokens": 1})
    chunks = events(http.post("/v1/chat/completions", json={**body, "stream": True}))
    texts = {0: "", 1: "", 2: ""}
    for chunk in chunks:
        for choice in chunk["choices"]:
            texts[choice["index"]] += choice["delta"].get("content", "")
    assert len(set(texts.values())) == 3
    again = events(http.post("/v1/chat/completions", json={**body, "stream": True}))
    assert len([1 for chunk in again for choice in chunk["choices"] if choice["finish_reason"]]) == 3


def test_echoed_prompts_come_before_their_continuations(http: httpx.Client) -> None:
    body = completion(prompt=["One two", "Red green"], echo=True, max_tokens=4, stream=True, logprobs=0)
    texts, offsets = ["", ""], [[], []]
    for chunk in events(http.post("/v1/completions", json=body)):
        choice = chunk["choices"][0]
        texts[choice["index"]] += choice["text"]
        offsets[choice["index"]] += (choice["logprobs"] or {}).get("text_offset", [])
    assert texts[0].startswith("One two")
    assert texts[1].startswith("Red green")
    for text, starts in zip(texts, offsets, strict=True):
        assert starts[0] == 0
        assert starts == sorted(starts)
        assert starts[-1] < len(text)
