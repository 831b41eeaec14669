"""What is sent to vLLM and what is made of its answers, against a small server of our own."""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
from fake_server import Exchange, FakeServer, Fields, says

from tapster.runtime.engines.base import Logprob, Token
from tapster.runtime.engines.vllm.address import Address, parse_url
from tapster.runtime.engines.vllm.config import VllmConfig
from tapster.runtime.engines.vllm.servers import BLOCK, Servers
from tapster.runtime.errors import ConfigError, ContextOverflow, EngineError, Overloaded, RequestError
from tapster.runtime.sampling import SamplingParams

PROMPT = [1, 2, 3]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer() as server:
        yield server


async def talks_on(exchange: Exchange, fields: Fields) -> None:
    await exchange.head()
    while True:
        await exchange.token(104)
        await asyncio.sleep(0.005)


async def ids(engine: Any, prompt: list[int] = PROMPT, **params: Any) -> list[int]:
    async with asyncio.timeout(10):
        return [token.id async for token in engine.generate(prompt, SamplingParams(**params))]


async def test_an_answer(server: FakeServer, open_engine) -> None:
    engine = open_engine(server)
    generation = engine.generate(PROMPT, SamplingParams())
    tokens = [token async for token in generation]
    assert tokens == [*(Token(byte) for byte in b"hello"), Token(256, is_eog=True)]
    assert (generation.finish_reason, generation.cached_tokens) == ("eog", 3)
    assert engine.stats()["running"] == engine.stats()["waiting"] == 0
    assert "Authorization: Bearer secret" in server.headers[-1]


async def test_the_length(server: FakeServer, open_engine) -> None:
    server.default = says(b"ab", finish="length", end=None)
    generation = open_engine(server).generate(PROMPT, SamplingParams(max_tokens=2))
    assert [token.id async for token in generation] == [*b"ab"]
    assert generation.finish_reason == "length"


async def test_the_server_ends_at_a_token_that_we_do_not_know_to_end(server: FakeServer, open_engine) -> None:
    server.default = says(b"ab", finish="stop", end=7)
    tokens = [token async for token in open_engine(server).generate(PROMPT, SamplingParams())]
    assert [token.is_eog for token in tokens] == [False, False, True]


async def test_a_server_that_does_not_end(server: FakeServer, open_engine) -> None:
    server.default = talks_on
    assert await ids(open_engine(server), max_tokens=3) == [104] * 3


async def test_several_tokens_in_an_event(server: FakeServer, open_engine) -> None:
    async def act(exchange: Exchange, fields: Fields) -> None:
        await exchange.head()
        await exchange.token(97, 98, prompt_token_ids=PROMPT)
        await exchange.token(99, 256, finish="stop")
        await exchange.done()

    server.default = act
    assert await ids(open_engine(server)) == [97, 98, 99, 256]


async def test_an_event_in_pieces(server: FakeServer, open_engine) -> None:
    async def act(exchange: Exchange, fields: Fields) -> None:
        await exchange.head()
        data = b": a comment\r\n\r\n" + b"".join(
            b"data:" + json.dumps({"choices": [{"token_ids": [byte]}]}).encode() + b"\r\n\r\n" for byte in b"hello"
        )
        for start in range(0, len(data), 7):
            await exchange.chunk(data[start : start + 7])
            await asyncio.sleep(0)
        await exchange.token(256, finish="stop")
        await exchange.done()

    server.default = act
    assert await ids(open_engine(server)) == [*b"hello", 256]


async def test_every_field_is_sent(server: FakeServer, open_engine) -> None:
    engine = open_engine(server)
    await ids(
        engine,
        max_tokens=9,
        temperature=0.7,
        top_k=5,
        top_p=0.9,
        min_p=0.1,
        repeat_penalty=1.2,
        frequency_penalty=0.3,
        presence_penalty=0.4,
        seed=42,
        logit_bias={65: 2.5},
    )
    sent = server.requests[-1]
    expected = {
        "model": "m",
        "prompt": PROMPT,
        "max_tokens": 9,
        "temperature": 0.7,
        "top_k": 5,
        "top_p": 0.9,
        "min_p": 0.1,
        "repetition_penalty": 1.2,
        "frequency_penalty": 0.3,
        "presence_penalty": 0.4,
        "seed": 42,
        "logit_bias": {"65": 2.5},
        "stop_token_ids": [256, 257],
        "min_tokens": 0,
        "ignore_eos": False,
        "logprobs": None,
        "echo": False,
    }
    assert {name: sent[name] for name in expected} == expected


async def test_nothing_is_left_to_the_servers_defaults(server: FakeServer, open_engine) -> None:
    await ids(open_engine(server))
    sent = server.requests[-1]
    neutral = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}
    assert {name: sent[name] for name in neutral} == neutral
    assert sent["max_tokens"] == 64 - len(PROMPT)


HONOURED = {
    "max_tokens": 5,
    "temperature": 0.5,
    "top_k": 3,
    "top_p": 0.0,
    "min_p": 0.2,
    "typical_p": 0.5,
    "repeat_penalty": 1.1,
    "frequency_penalty": 0.1,
    "presence_penalty": 0.1,
    "penalty_last_n": 7,
    "seed": 1,
    "logit_bias": {1: 1.0},
    "grammar": 'root ::= "a"',
    "top_logprobs": 2,
    "prompt_logprobs": 2,
    "ignore_eog": True,
}


REFUSED = ("typical_p", "penalty_last_n")


@pytest.mark.parametrize("name", [field.name for field in fields(SamplingParams)])
async def test_every_parameter_changes_the_request_or_is_refused(server: FakeServer, open_engine, name: str) -> None:
    engine = open_engine(server)

    async def sent(**params: Any) -> Fields:
        generation = engine.generate(PROMPT, SamplingParams(**params))
        with pytest.raises(EngineError) if params.get("top_logprobs") or params.get("prompt_logprobs") else _no_error():
            async for _ in generation:
                pass
        return server.requests[-1]

    penalised = {"repeat_penalty": 1.3} if name == "penalty_last_n" else {}
    plain = await sent(**penalised)
    if name in REFUSED:
        with pytest.raises(RequestError, match="the vllm engine") as caught:
            await sent(**penalised, **{name: HONOURED[name]})
        assert caught.value.param == name
    else:
        assert await sent(**penalised, **{name: HONOURED[name]}) != plain


def _no_error() -> Any:
    from contextlib import nullcontext

    return nullcontext()


@pytest.mark.parametrize(
    ("params", "param"),
    [({"temperature": 0.001}, "temperature"), ({"temperature": 3}, "temperature"), ({"typical_p": 0.9}, "typical_p")],
)
async def test_what_vllm_would_do_otherwise_is_refused(
    server: FakeServer, open_engine, params: Any, param: str
) -> None:
    with pytest.raises(RequestError) as caught:
        open_engine(server).generate(PROMPT, SamplingParams(**params))
    assert caught.value.param == param


async def test_ends_are_forbidden(server: FakeServer, open_engine) -> None:
    await ids(open_engine(server), ignore_eog=True, max_tokens=6)
    assert server.requests[-1]["min_tokens"] == 6


async def test_penalties_over_nothing_are_none(server: FakeServer, open_engine) -> None:
    await ids(open_engine(server), penalty_last_n=0, repeat_penalty=1.5)
    assert server.requests[-1]["repetition_penalty"] == 1.0


def logprobs(*rows: dict[int, float]) -> dict[str, Any]:
    """As vLLM writes them: the chosen token first in each row."""
    return {
        "token_logprobs": [next(iter(row.values())) if row else None for row in rows],
        "top_logprobs": [{f"token_id:{token}": value for token, value in row.items()} or None for row in rows],
    }


async def test_log_probabilities(server: FakeServer, open_engine) -> None:
    async def act(exchange: Exchange, fields: Fields) -> None:
        await exchange.head()
        await exchange.token(97, logprobs=logprobs({97: -3.0, 98: -0.5, 99: -1.0}))
        await exchange.token(98, logprobs=logprobs({98: -0.25, 97: -2.0}), finish="length")
        await exchange.done()

    server.default = act
    generation = open_engine(server).generate(PROMPT, SamplingParams(top_logprobs=2, max_tokens=2))
    assert [token async for token in generation] == [
        Token(97, logprob=-3.0, top=(Logprob(98, -0.5), Logprob(99, -1.0))),
        Token(98, logprob=-0.25, top=(Logprob(98, -0.25), Logprob(97, -2.0))),
    ]


async def test_a_scored_prompt(server: FakeServer, open_engine) -> None:
    async def act(exchange: Exchange, fields: Fields) -> None:
        assert fields["echo"]
        await exchange.head()
        scored = logprobs({}, {2: -1.5, 9: -0.5}, {3: -0.1}, {97: -7.0})
        await exchange.token(97, prompt_token_ids=PROMPT, logprobs=scored, finish="length")
        await exchange.done()

    server.default = act
    generation = open_engine(server).generate(PROMPT, SamplingParams(max_tokens=0, prompt_logprobs=1))
    assert [token async for token in generation] == []
    assert generation.finish_reason == "length"
    assert generation.prompt_logprobs == [
        Token(1),
        Token(2, logprob=-1.5, top=(Logprob(9, -0.5),)),
        Token(3, logprob=-0.1, top=(Logprob(3, -0.1),)),
    ]


async def test_cancel_closes_the_connection(server: FakeServer, open_engine) -> None:
    server.default = talks_on
    engine = open_engine(server)
    generation = engine.generate(PROMPT, SamplingParams())
    async for _ in generation:
        generation.cancel()
    assert generation.finish_reason == "cancelled"
    gone = server.num_gone
    async with asyncio.timeout(5):
        while server.num_gone == gone:
            await asyncio.sleep(0.01)
    assert engine.stats()["running"] == engine.stats()["waiting"] == 0


async def test_abort_ends_what_runs(server: FakeServer, open_engine) -> None:
    server.default = talks_on
    engine = open_engine(server)
    generation = engine.generate(PROMPT, SamplingParams())
    await anext(generation)
    engine.abort()
    with pytest.raises(EngineError, match="shutting down") as caught:
        async for _ in generation:
            pass
    assert caught.value.is_shutdown


async def test_closed(server: FakeServer, open_engine) -> None:
    engine = open_engine(server)
    engine.close()
    with pytest.raises(EngineError, match="has stopped"):
        engine.generate(PROMPT, SamplingParams())


@pytest.mark.parametrize(
    ("prompt", "params", "kind"),
    [
        ([], {}, RequestError),
        ([258], {}, RequestError),
        ([1], {"logit_bias": {-1: 1.0}}, RequestError),
        ([1] * 64, {}, ContextOverflow),
        ([1] * 64, {"max_tokens": 0}, ContextOverflow),
    ],
)
async def test_refused_before_it_is_sent(server: FakeServer, open_engine, prompt: Any, params: Any, kind: Any) -> None:
    with pytest.raises(kind):
        open_engine(server).generate(prompt, SamplingParams(**params))
    assert server.requests == []


async def test_too_many_requests(server: FakeServer, open_engine) -> None:
    server.default = talks_on
    engine = open_engine(server, max_parallel=1, max_waiting=1)
    running = [engine.generate(PROMPT, SamplingParams()) for _ in range(2)]
    with pytest.raises(Overloaded):
        engine.generate(PROMPT, SamplingParams())
    for generation in running:
        generation.cancel()
    await ids(engine, max_tokens=1)


async def test_no_embeddings(server: FakeServer, open_engine) -> None:
    engine = open_engine(server)
    assert not engine.capabilities.embeddings
    with pytest.raises(RequestError):
        await engine.embed(PROMPT)


async def test_a_smaller_context(server: FakeServer, open_engine) -> None:
    assert open_engine(server, context=32).capabilities.context_length == 32
    with pytest.raises(ConfigError, match="--context 65 is more than the 64"):
        open_engine(server, context=65)


async def test_the_load_is_shared_and_a_known_prompt_goes_back(open_engine) -> None:
    with FakeServer(context=1000) as one, FakeServer(context=1000) as two:
        engine = open_engine(one, two)
        running = [engine.generate([n] * BLOCK, SamplingParams(max_tokens=900)) for n in range(4)]
        for server in (one, two):
            server.default = talks_on
        async with asyncio.timeout(5):
            for generation in running:
                await anext(generation)
        assert (len(one.requests), len(two.requests)) == (2, 2)
        for generation in running:
            generation.cancel()
        seen = {tuple(request["prompt"]): server for server in (one, two) for request in server.requests}
        for prompt, server in seen.items():
            count = len(server.requests)
            await ids(engine, [*prompt, 5, 6], max_tokens=1)
            assert len(server.requests) == count + 1


def test_affinity_ends_where_a_server_is_much_busier() -> None:
    servers = Servers(parse_url("vllm://a,b")[0])
    blocks = servers.blocks([7] * (3 * BLOCK + 1))
    assert len(blocks) == 3
    known, other = servers.all
    known.remember(blocks)
    known.num_open = 4
    assert servers.choose(blocks, ()) is known
    known.num_open = 5
    assert servers.choose(blocks, ()) is other
    other.num_open = 20
    known.num_open = 30
    assert servers.choose(blocks, ()) is known
    assert servers.choose(servers.blocks([8] * BLOCK), ()) is other


def test_a_server_may_be_down_for_very_long() -> None:
    server = Servers(parse_url("vllm://a")[0]).all[0]
    for _ in range(1100):
        server.failed("connection refused")
    assert not server.is_up
    assert server.retry_at_s < time.monotonic() + 31


def test_a_server_that_is_down_comes_last() -> None:
    servers = Servers(parse_url("vllm://a,b")[0])
    one, two = servers.all
    one.failed("test")
    two.num_open = 9
    assert servers.choose([], ()) is two
    assert servers.choose([], [two]) is one
    assert servers.choose([], [one, two]) is None


@pytest.mark.parametrize(
    ("spec", "addresses"),
    [
        ("vllm://host", ["http://host:8000"]),
        ("vllm://h1:1,h2:2/p/v1/", ["http://h1:1/p", "http://h2:2/p"]),
        ("vllms://host", ["https://host:443"]),
        ("https://host:8443/v1", ["https://host:8443"]),
        ("vllm://[::1]:8000", ["http://[::1]:8000"]),
    ],
)
def test_addresses(spec: str, addresses: list[str]) -> None:
    assert [str(address) for address in parse_url(spec)[0]] == addresses


@pytest.mark.parametrize(
    "spec",
    [
        "vllm://",
        "vllm:///x",
        "ftp://h",
        "vllm://h:x",
        "vllm://h:99999",
        "vllm://a,,b",
        "vllm://a,a",
        "vllm://k@h",
        "h:1",
    ],
)
def test_bad_addresses(spec: str) -> None:
    with pytest.raises(ConfigError):
        parse_url(spec)


def test_a_secret_in_the_url_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_url("vllm://me:hunter2@host:8000")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"vllm_read_timeout_s": 0}, "--vllm-read-timeout-s"),
        ({"vllm_start_timeout_s": float("inf")}, "--vllm-start-timeout-s"),
        ({"vllm_retries": -1}, "--vllm-retries"),
        ({"threads": 2}, "--threads has no effect"),
        ({"batch_tokens": 256}, "--batch-tokens has no effect"),
        ({"arguments": ("--port", "1")}, "--port"),
        ({"arguments": ("--api_key=x",)}, "--api-key"),
        ({"arguments": ("--x",), "addresses": (Address("h", 1),)}, "--"),
        ({"api_key": "a\nb"}, "key"),
    ],
)
def test_bad_settings(settings: dict[str, Any], flag: str) -> None:
    with pytest.raises(ConfigError, match=flag):
        VllmConfig(**settings)


def test_the_key_is_not_shown() -> None:
    assert "hunter2" not in repr(VllmConfig(api_key="hunter2"))
