"""Requests at the same time: they do not disturb each other, and those that are given up are freed."""

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from answers import Answers
from black_box import Api, Prompt, Reply

COUNTRIES = (
    *("Japan", "Italy", "Peru", "Kenya", "Norway", "Canada", "Egypt", "Spain"),
    *("India", "Chile", "Cuba", "Greece", "France", "Brazil", "Ghana", "Nepal"),
)
NEAR_TIE_NATS = 0.35
"""Larger batches take other paths through a model; where two tokens are as near as that, either may win."""
ENDLESS = {"max_tokens": 1900, "ignore_eos": True}
"""Many more steps than the tests look on for: what ends before was given up."""


def state(server: Api) -> dict[str, Any]:
    """What the engine does now."""
    response = server.http.get("ready")
    if response.status_code != 200 or "engine" not in response.text:
        pytest.skip("the server has no /ready, which counts what runs")
    return response.json()["engine"]


def is_freed(server: Api) -> bool:
    """Whether nothing runs soon, told in steps of the engine and not in seconds: short answers are made meanwhile."""
    for _ in range(20):
        now = state(server)
        if now["running"] + now["waiting"] == 0:
            return True
        server.whole(Prompt("Hello"), max_tokens=4)
    return False


def first_difference(alone: Reply, busy: Reply) -> float | None:
    """By how much the first token on which two answers differ was preferred; None when they are the same."""
    ours, theirs = alone.logprobs[0]["content"], busy.logprobs[0]["content"]
    for one, other in zip(ours, theirs, strict=False):
        if one["bytes"] != other["bytes"]:
            return one["top_logprobs"][0]["logprob"] - one["top_logprobs"][1]["logprob"]
    return None if len(ours) == len(theirs) else 0.0


def test_sixteen_at_once_answer_as_alone(server: Api) -> None:
    prompts = [Prompt(f"What is the capital of {country}?") for country in COUNTRIES]

    def one(prompt: Prompt) -> Reply:
        return server.whole(prompt, max_tokens=8, logprobs=True, top_logprobs=2)

    with ThreadPoolExecutor(len(prompts)) as pool:
        busy = list(pool.map(one, prompts))
    gaps = [first_difference(one(prompt), reply) for prompt, reply in zip(prompts, busy, strict=True)]
    assert [gap for gap in gaps if gap is not None and gap > NEAR_TIE_NATS] == []
    assert gaps.count(None) >= len(gaps) // 2


@pytest.mark.parametrize("n", [1, 2])
def test_a_closed_stream_is_freed_and_the_others_go_on(server: Api, answers: Answers, n: int) -> None:
    plain = answers.chat()
    assert is_freed(server)
    with ThreadPoolExecutor(1) as pool:
        leaving = server.events(plain.prompt, **ENDLESS, n=n)
        for _ in range(3):
            next(leaving)
        other = pool.submit(server.streamed, plain.prompt, max_tokens=plain.max_tokens)
        leaving.close()  # type: ignore[attr-defined]  # it is a generator
        assert other.result().text == plain.text
    assert is_freed(server)


def test_an_answer_that_nobody_waits_for_is_freed(server: Api, answers: Answers) -> None:
    assert is_freed(server)
    body = server.body(answers.chat().prompt, **ENDLESS)
    impatient = httpx.Client(base_url=server.http.base_url, headers=server.http.headers, timeout=2)
    with impatient, contextlib.suppress(httpx.ReadTimeout):
        impatient.post("v1/chat/completions", json=body)
        pytest.fail("the answer came at once")
    assert is_freed(server)
