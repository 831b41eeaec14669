"""Every way in which a server can fail: one clear error for that request, and nothing hangs."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from fake_server import Act, Exchange, FakeServer, Fields, refuses, says

from tapster.runtime.engines.vllm.engine import VllmEngine
from tapster.runtime.errors import EngineError, ModelError, Overloaded, RequestError, TapsterError
from tapster.runtime.sampling import SamplingParams

PROMPT = [1, 2, 3]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


@pytest.fixture
def other() -> Iterator[FakeServer]:
    with FakeServer() as server:
        server.default = says(b"other")
        yield server


async def text(engine: VllmEngine, **params: Any) -> str:
    """What an engine makes of a request, within a time in which anything else would be a hang."""
    async with asyncio.timeout(10):
        generation = engine.generate(PROMPT, SamplingParams(**params))
        tokens = [token async for token in generation]
    return bytes(token.id for token in tokens if not token.is_eog).decode()


async def failure(engine: VllmEngine, kind: type[TapsterError], **params: Any) -> str:
    with pytest.raises(kind) as caught:
        await text(engine, **params)
    message = str(caught.value)
    assert "\n" not in message
    return message


async def drops(exchange: Exchange, fields: Fields) -> None:
    exchange.drop()


async def drops_after_headers(exchange: Exchange, fields: Fields) -> None:
    await exchange.head()
    exchange.drop()


async def drops_after_a_token(exchange: Exchange, fields: Fields) -> None:
    await exchange.head()
    await exchange.token(104)
    await asyncio.sleep(0.05)
    exchange.drop()


async def stalls_after_a_token(exchange: Exchange, fields: Fields) -> None:
    await exchange.head()
    await exchange.token(104)
    await asyncio.sleep(60)


async def says_nothing(exchange: Exchange, fields: Fields) -> None:
    await asyncio.sleep(60)


async def test_nobody_there(server: FakeServer, open_engine) -> None:
    server.stop()
    with pytest.raises(ModelError, match=rf"vLLM does not answer: http://{server.url}: connection refused; is vLLM"):
        open_engine(server)


async def test_gone_later(server: FakeServer, open_engine) -> None:
    engine = open_engine(server)
    server.stop()
    assert "connection refused" in await failure(engine, EngineError)


@pytest.mark.parametrize("act", [drops, drops_after_headers])
async def test_a_connection_lost_before_the_first_token_is_tried_again(
    server: FakeServer, open_engine, act: Act
) -> None:
    engine = open_engine(server)
    server.acts.append(act)
    assert await text(engine) == "hello"
    assert len(server.requests) == 2


async def test_trying_again_has_an_end(server: FakeServer, open_engine) -> None:
    engine = open_engine(server)
    server.default = drops
    assert "it closed the connection" in await failure(engine, EngineError)
    assert len(server.requests) == 2
    server.default = says(b"back")
    assert await text(engine) == "back"


async def test_another_server_takes_over(server: FakeServer, other: FakeServer, open_engine) -> None:
    engine = open_engine(server, other, vllm_retries=0)
    server.default = drops
    assert [await text(engine) for _ in range(4)] == ["other"] * 4
    assert len(server.requests) == 1  # it is left out after that


async def test_a_connection_lost_in_mid_answer_is_reported(server: FakeServer, other: FakeServer, open_engine) -> None:
    engine = open_engine(server, other)
    server.acts.append(drops_after_a_token)
    other.acts.append(drops_after_a_token)
    assert "closed the connection in the middle of the answer" in await failure(engine, EngineError)
    assert len(server.requests) + len(other.requests) == 1
    assert engine.failed is None


async def test_a_restart_in_mid_answer(server: FakeServer, open_engine) -> None:
    engine = open_engine(server)
    server.acts.append(stalls_after_a_token)
    generation = engine.generate(PROMPT, SamplingParams())
    assert (await anext(aiter(generation))).id == 104
    server.stop()
    with pytest.raises(EngineError, match="in the middle of the answer"):
        await anext(aiter(generation))
    with FakeServer(port=server.port):
        assert await text(engine) == "hello"


async def test_a_server_that_comes_back_with_another_model_is_not_used(server: FakeServer, open_engine) -> None:
    engine = open_engine(server)
    server.stop()
    await failure(engine, EngineError)
    with FakeServer(port=server.port, model="another"):
        assert "it has another model now: another" in await failure(engine, EngineError)
    with FakeServer(port=server.port):
        assert await text(engine) == "hello"


async def test_silence_in_mid_answer(server: FakeServer, open_engine) -> None:
    engine = open_engine(server)
    server.acts.append(stalls_after_a_token)
    assert "no token for 0.3 s" in await failure(engine, EngineError)
    assert await text(engine) == "hello"


async def test_the_first_token_may_take_its_time(server: FakeServer, open_engine) -> None:
    async def thinks(exchange: Exchange, fields: Fields) -> None:
        await asyncio.sleep(1)
        await says(b"at last")(exchange, fields)

    engine = open_engine(server)
    server.acts.append(thinks)
    assert await text(engine) == "at last"
    assert "/health" in server.paths


async def test_a_server_that_hangs_before_the_first_token(server: FakeServer, other: FakeServer, open_engine) -> None:
    engine = open_engine(server, other)
    server.default, server.health = says_nothing, 503
    assert await text(engine) == "other"


async def test_the_server_closed_a_connection_that_was_kept(server: FakeServer, open_engine) -> None:
    engine = open_engine(server, vllm_retries=0)
    assert await text(engine) == "hello"
    connections = server.num_connections
    assert await text(engine) == "hello"
    assert server.num_connections == connections
    server.acts.append(drops)
    assert await text(engine) == "hello"
    assert engine.stats()["servers_up"] == 1


@pytest.mark.parametrize(
    ("status", "body", "kind", "says_so"),
    [
        (
            400,
            {"error": {"message": "top_k\nis bad", "param": "top_k"}},
            RequestError,
            "refuses the request: top_k is bad",
        ),
        (422, {"detail": "no such field"}, RequestError, "no such field"),
        (400, {"object": "error", "message": "old style"}, RequestError, "old style"),
        (401, {"error": "Unauthorized"}, EngineError, "set VLLM_API_KEY"),
        (404, {"error": {"message": "The model `m` does not exist."}}, EngineError, "HTTP 404: The model `m` does not"),
        (429, {"error": {"message": "slow down"}}, Overloaded, "slow down"),
        (503, b"", Overloaded, "no reason given"),
        (500, {"error": {"message": "EngineCore died"}}, EngineError, "HTTP 500: EngineCore died"),
        (404, b"<!DOCTYPE HTML>\n<html>", EngineError, "answers with a web page .HTTP 404.: is it vLLM"),
        (500, b"<html>" + b"x" * 100_000, EngineError, "HTTP 500: <html>"),
        (502, b"bad gateway", EngineError, "does not answer: .*HTTP 502"),
        (302, b"", EngineError, "HTTP 302"),
    ],
)
async def test_http_errors(server: FakeServer, open_engine, status: int, body: Any, kind: Any, says_so: str) -> None:
    engine = open_engine(server)
    server.default = refuses(status, body, "retry-after: 7")
    with pytest.raises(kind, match=says_so) as caught:
        await text(engine)
    assert len(str(caught.value)) < 700
    if isinstance(caught.value, Overloaded):
        assert caught.value.retry_after_s == 7
    if isinstance(caught.value, RequestError) and "error" in body:
        assert caught.value.param == "top_k"
    server.default = says(b"well again")
    assert await text(engine) == "well again"


async def test_a_grammar_that_cannot_be_read(server: FakeServer, open_engine) -> None:
    engine = open_engine(server)
    server.acts.append(refuses(400, {"error": {"message": "Invalid grammar specification: line 1", "param": None}}))
    with pytest.raises(RequestError) as caught:
        await text(engine, grammar="root ::=")
    assert caught.value.param == "grammar"


async def test_a_busy_server_is_passed_over(server: FakeServer, other: FakeServer, open_engine) -> None:
    engine = open_engine(server, other)
    server.default = refuses(503, b"")
    assert [await text(engine) for _ in range(3)] == ["other"] * 3


def sends(*events: bytes) -> Act:
    async def act(exchange: Exchange, fields: Fields) -> None:
        await exchange.head()
        for event in events:
            await exchange.chunk(event)
        await exchange.write(b"0\r\n\r\n")

    return act


def event(**choice: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


NONSENSE = {
    "no JSON": sends(b"data: {oops\n\n"),
    "no object": sends(b"data: 7\n\n"),
    "no choices": sends(b"data: {}\n\n"),
    "choices are text": sends(b'data: {"choices": "abc"}\n\n'),
    "deep": sends(b"data: " + b"[" * 100_000 + b"\n\n"),
    "no UTF-8": sends(b"data: \xff\xfe\n\n"),
    "no events": sends(b"hello there\n"),
    "empty": sends(),
    "outside the vocabulary": sends(event(token_ids=[258], finish_reason=None)),
    "negative": sends(event(token_ids=[-1], finish_reason=None)),
    "no integer": sends(event(token_ids=["a"], finish_reason=None)),
    "true": sends(event(token_ids=[True], finish_reason=None)),
    "another prompt": sends(event(token_ids=[1], prompt_token_ids=[9], finish_reason=None)),
    "an end without an end": sends(event(token_ids=[104], finish_reason=None), b"data: [DONE]\n\n"),
}


@pytest.mark.parametrize("act", NONSENSE.values(), ids=NONSENSE.keys())
async def test_nonsense(server: FakeServer, open_engine, act: Act) -> None:
    engine = open_engine(server)
    server.acts.append(act)
    assert "makes no sense" in await failure(engine, EngineError)
    assert await text(engine) == "hello"
    assert engine.failed is None


async def test_no_token_ids(server: FakeServer, open_engine) -> None:
    engine = open_engine(server)
    server.acts.append(sends(event(text="hello", finish_reason="stop")))
    assert "version 0.11" in await failure(engine, EngineError)


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        {},
        {"token_logprobs": [float("nan")], "top_logprobs": [{}]},
        {"token_logprobs": [-1.0], "top_logprobs": [{"a": -1.0}]},
        {"token_logprobs": [-1.0], "top_logprobs": None},
    ],
)
async def test_log_probabilities_that_make_no_sense(server: FakeServer, open_engine, logprobs: Any) -> None:
    engine = open_engine(server)
    server.acts.append(sends(event(token_ids=[104], finish_reason=None, logprobs=logprobs)))
    assert "makes no sense" in await failure(engine, EngineError, top_logprobs=1)


async def test_a_prompt_that_was_asked_for_and_is_not_scored(server: FakeServer, open_engine) -> None:
    engine = open_engine(server)
    server.acts.append(sends(event(token_ids=[104], finish_reason=None, logprobs=None)))
    assert "no log-probabilities of the prompt" in await failure(engine, EngineError, prompt_logprobs=0)


@pytest.mark.parametrize(("code", "kind"), [(400, RequestError), (500, EngineError), ("x", EngineError)])
async def test_an_error_in_the_stream(server: FakeServer, open_engine, code: Any, kind: Any) -> None:
    engine = open_engine(server)
    body = json.dumps({"error": {"message": "something\nbroke", "code": code}}).encode()
    server.acts.append(sends(event(token_ids=[104], finish_reason=None), b"data: " + body + b"\n\n"))
    assert "something broke" in await failure(engine, kind)


async def test_no_http_at_all(open_engine) -> None:
    async def gibberish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH\r\n")
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(gibberish, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    with pytest.raises(ModelError, match="vLLM does not answer"):
        await asyncio.to_thread(open_engine, type("Server", (), {"url": f"127.0.0.1:{port}"}))
    listening.close()
    await listening.wait_closed()


async def test_one_of_two_is_down_at_the_start(server: FakeServer, other: FakeServer, open_engine) -> None:
    server.stop()
    engine = open_engine(server, other)
    assert await text(engine) == "other"
    assert engine.stats()["servers_up"] == 1


async def test_servers_with_different_models(server: FakeServer, other: FakeServer, open_engine) -> None:
    other.model = "another"
    with pytest.raises(ModelError, match=r"different models: .* has m, .* has another"):
        open_engine(server, other)


async def test_an_old_server(server: FakeServer, open_engine) -> None:
    server.version = "0.10.2"
    with pytest.raises(ModelError, match=r"has version 0.10: it has to be 0.11 or newer"):
        open_engine(server)


async def test_the_wrong_tokenizer(server: FakeServer, open_engine) -> None:
    server.tokens = [1, 2, 3]
    with pytest.raises(ModelError, match="give --tokenizer"):
        open_engine(server)
