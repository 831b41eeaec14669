"""Recorded bytes to answers, however they were cut."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapster.runtime.errors import TargetError
from tapster.server.bench.events import read_answer, split_events
from tapster.server.bench.exchange import Exchange


def recorded(*chunks: bytes, status: int | None = 200) -> Exchange:
    """An exchange that received chunk number n at n seconds."""
    exchange = Exchange()
    exchange.status = status
    exchange.body = [(float(index), chunk) for index, chunk in enumerate(chunks)]
    return exchange


def event(**fields: object) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def text_event(text: str, finish_reason: str | None = None) -> bytes:
    return event(choices=[{"index": 0, "text": text, "finish_reason": finish_reason}])


DONE = b"data: [DONE]\n\n"


async def test_an_event_has_the_time_of_its_last_byte() -> None:
    chunks = [
        (1.0, b"data: a\n\nda"),
        (2.0, b"ta: b\r\n\r"),
        (3.0, b"\n: ping\n\ndata:c\ndata: d\n\n"),
        (4.0, b"data: e"),
    ]
    assert list(split_events(chunks)) == [(1.0, b"a"), (3.0, b"b"), (3.0, b"c\nd")]


@given(st.lists(st.text("ab:\r é", max_size=5), max_size=6), st.data())
def test_events_do_not_depend_on_how_bytes_are_cut(texts: list[str], data: st.DataObject) -> None:
    payloads = [b"x" + text.encode().strip(b"\r") for text in texts]
    stream = b"".join(b"data: " + payload + b"\n\n" for payload in payloads)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    bounds = zip([0, *cuts], [*cuts, len(stream)], strict=True)
    chunks = [(0.0, stream[start:end]) for start, end in bounds]
    assert [payload for _, payload in split_events(chunks)] == payloads


async def test_read_answer_counts_what_the_server_counts() -> None:
    usage = event(choices=[], usage={"prompt_tokens": 31, "completion_tokens": 4})
    exchange = recorded(text_event("a") + text_event("b"), text_event(""), text_event("cd", "length"), usage + DONE)
    result = read_answer(exchange)
    assert (result.text, result.times_s) == ("abcd", (0.0, 0.0, 2.0))
    assert (result.new_tokens, result.prompt_tokens, result.is_counted) == (4, 31, True)


async def test_read_answer_of_a_chat_takes_content_and_reasoning() -> None:
    deltas = [{"role": "assistant", "content": ""}, {"reasoning_content": "hm"}, {"content": "yes"}, {}]
    exchange = recorded(*(event(choices=[{"delta": delta, "finish_reason": None}]) for delta in deltas), DONE)
    result = read_answer(exchange)
    assert (result.text, result.times_s) == ("hmyes", (1.0, 2.0))
    assert (result.new_tokens, result.prompt_tokens, result.is_counted) == (2, None, False)


@pytest.mark.parametrize(
    ("exchange_of", "message"),
    [
        ((text_event("a"), b"data: {"), "the stream ended early, after 1 events with text"),
        ((), "the stream ended early, after 0 events"),
        (
            (text_event("a"), event(error={"message": "out\nof memory"})),
            "broke off with an error: out of memory",
        ),
        ((b"data: oops\n\n",), "an event that is no JSON object: oops"),
        ((b"data: [1]\n\n",), "an event that is no JSON object"),
    ],
)
async def test_an_answer_that_is_not_whole_is_an_error(exchange_of: tuple[bytes, ...], message: str) -> None:
    with pytest.raises(TargetError, match=message):
        read_answer(recorded(*exchange_of))


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (401, b'{"error": {"message": "no key"}}', "HTTP 401: no key"),
        (422, b'{"detail": [{"loc": ["body"]}]}', r'HTTP 422: \[{"loc": \["body"\]}\]'),
        (502, b"<html>\nbad gateway</html>", "HTTP 502: <html> bad gateway</html>"),
        (None, b"", "closed the connection without an HTTP answer"),
    ],
)
async def test_a_refusal_is_one_line(status: int | None, body: bytes, message: str) -> None:
    with pytest.raises(TargetError, match=message) as caught:
        read_answer(recorded(body, status=status))
    assert caught.value.status == status
    assert "\n" not in str(caught.value)
