"""What the scenarios send to a real server."""

from typing import Any

from tapster.server.bench.benchmark import benchmark
from tapster.server.bench.options import BenchOptions
from tapster.server.bench.prompts import prompt
from tapster.server.bench.target import WARM_UP_TOKENS


async def test_every_scenario_sends_what_it_says(stream_server: Any) -> None:
    result = await benchmark(BenchOptions(what=stream_server.url, repeat=2, seed=7), None, lambda text: None)
    assert {scenario.name: scenario.streams for scenario in result.scenarios} == {
        "single": 1, "concurrent": 8, "shared": 8, "mixed": 4, "second-turn": 1,
    }  # fmt: skip
    assert {scenario.name: scenario.new_tokens for scenario in result.scenarios} == {
        "single": 96, "concurrent": 768, "shared": 256, "mixed": 768, "second-turn": 32,
    }  # fmt: skip
    for scenario in result.scenarios:
        assert len(scenario.runs) == 2
        assert scenario.figures["wall_s"].min > 0
        assert scenario.ceiling is None
    short_answer = prompt(WARM_UP_TOKENS[0], "warm-up")
    texts = [body["prompt"] for body in stream_server.bodies if body.get("prompt", short_answer) != short_answer]
    assert len(texts) == 2 * (1 + 8 + 8 + 5)
    assert len(set(texts)) == len(texts), "a prompt was sent twice: a prefix cache would know it"
    chats = [body["messages"] for body in stream_server.bodies if "messages" in body]
    assert [len(chat) for chat in chats] == [1, 1, 3, 1, 3]
    assert chats[2][:2] == [*chats[1], {"role": "assistant", "content": "".join(f" w{i}" for i in range(32))}]
    assert result.notes == []


async def test_chat_sends_every_prompt_as_a_chat(stream_server: Any) -> None:
    options = BenchOptions(what=stream_server.url, repeat=1, scenarios=("single",), is_chat=True)
    await benchmark(options, None, lambda text: None)
    assert all("messages" in body for body in stream_server.bodies)
