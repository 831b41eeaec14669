"""The client against a real server that streams well or badly."""

from typing import Any

import pytest

from tapster.runtime.errors import ConfigError, TargetError
from tapster.server.bench.exchange import Address
from tapster.server.bench.own_server import free_port
from tapster.server.bench.target import Target, first_model


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost:8000", "http://localhost:8000/v1"),
        ("http://localhost:8000/v1/", "http://localhost:8000/v1"),
        ("https://api.example.com/openai/v1", "https://api.example.com:443/openai/v1"),
        ("http://[::1]", "http://[::1]:80/v1"),
    ],
)
def test_address(url: str, expected: str) -> None:
    assert Address.parse(url).url == expected


@pytest.mark.parametrize("url", ["http://", "http://host:port", "http://host:99999", "ftp://host"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="is no URL"):
        Address.parse(url)


def target_of(stream_server: Any, model: str, **options: Any) -> Target:
    return Target(Address.parse(stream_server.url), model, **options)


@pytest.mark.parametrize("model", ["plain", "cut"])
async def test_answers_come_whole_however_their_events_are_sent(stream_server: Any, model: str) -> None:
    target = target_of(stream_server, model)
    answers = await target.run([target.completion(text, 12) for text in ("a", "b", "c")])
    assert [one.text for one in answers] == ["".join(f" w{index}" for index in range(12))] * 3
    for one in answers:
        assert (one.new_tokens, one.prompt_tokens, len(one.times_s)) == (12, 5, 12)
        assert one.sent_s < one.times_s[0] <= one.times_s[-1] <= one.ended_s
    assert sorted(body["prompt"] for body in stream_server.bodies) == ["a", "b", "c"]


async def test_fields_that_a_server_refuses_are_left_out(stream_server: Any) -> None:
    target = target_of(stream_server, "strict")
    [first] = await target.warm_up()
    assert first.is_counted is False
    assert ["ignore_eos" in body for body in stream_server.bodies] == [True, False, False]
    assert ["stream_options" in body for body in stream_server.bodies] == [True, True, False]
    [second] = await target.run([target.completion("a", 4)])
    assert second.new_tokens == 4


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("absent", {}, "HTTP 404: no model absent here"),
        ("plain", {"api_key": "bad"}, "HTTP 401: wrong key"),
        ("breaks", {}, "the stream ended early, after 3 events with text"),
        ("hangs", {"timeout_s": 0.3}, "no whole answer from .* within 0.3 s"),
    ],
)
async def test_a_server_that_fails_is_one_clear_line(
    stream_server: Any, model: str, options: dict, message: str
) -> None:
    with pytest.raises(TargetError, match=message):
        await target_of(stream_server, model, **options).warm_up()


async def test_nothing_listens_there() -> None:
    with pytest.raises(TargetError, match=r"cannot reach http://127.0.0.1:\d+/v1: .*is the server running\?"):
        await first_model(Address.parse(f"http://127.0.0.1:{free_port()}"))
