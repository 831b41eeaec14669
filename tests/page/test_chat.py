"""The handlers of the page on a real runtime, without a browser."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import gradio as gr
import pytest

from tapster.runtime.errors import Overloaded
from tapster.runtime.runtime import Runtime
from tapster.server.page.chat import Chat
from tapster.server.page.settings import Settings

Updates = AsyncGenerator[tuple[Any, Any, Any]]


@pytest.fixture
def chat(tiny_runtime: Runtime) -> Chat:
    return Chat(lambda: tiny_runtime)


def _send(chat: Chat, text: str = "Hello", *, history: Any = (), tab: str = "a", **fields: str) -> Updates:
    settings = Settings(**{"temperature": "0", **fields})
    values = [getattr(settings, name) for name in Settings.__dataclass_fields__]
    return chat.send(text, list(history), gr.Request(session_hash=tab), *values)


async def _is_idle(runtime: Runtime) -> bool:
    for _ in range(500):
        stats = runtime.stats()
        if stats["running"] == stats["waiting"] == 0:
            return True
        await asyncio.sleep(0.01)
    return False


async def test_the_answer_grows_and_the_box_is_busy_meanwhile(chat: Chat) -> None:
    updates = [update async for update in _send(chat, max_tokens="64")]
    lengths = [len(update[0][-1]["content"]) for update in updates]
    assert lengths[0] == 0
    assert lengths == sorted(lengths)
    assert lengths[-1] > 0
    assert [message["role"] for message in updates[-1][0]] == ["user", "assistant"]
    assert updates[0][1] == gr.update(value="", submit_btn=False, stop_btn=True)
    assert updates[-1][1] == gr.update(submit_btn=True, stop_btn=False)


async def test_stop_keeps_what_came(chat: Chat, tiny_runtime: Runtime) -> None:
    updates = _send(chat, max_tokens="1000")
    last: Any = None
    async for last in updates:
        if len(last[0][-1]["content"]) > 3:
            await chat.stop(gr.Request(session_hash="a"))
    assert len(last[0][-1]["content"]) > 3
    assert "stopped" in last[2]
    assert await _is_idle(tiny_runtime)


async def test_stop_in_one_tab_leaves_the_other_running(chat: Chat) -> None:
    mine, other = _send(chat, tab="a", max_tokens="200"), _send(chat, tab="b", max_tokens="200")
    await anext(mine)
    await anext(other)
    await chat.stop(gr.Request(session_hash="a"))
    assert "stopped" in [update async for update in mine][-1][2]
    assert "stopped" not in [update async for update in other][-1][2]


async def test_a_browser_that_goes_away_frees_the_sequence(chat: Chat, tiny_runtime: Runtime) -> None:
    updates = _send(chat, max_tokens="1000")
    await anext(updates)
    await anext(updates)
    assert tiny_runtime.stats()["running"] + tiny_runtime.stats()["waiting"] == 1
    await updates.aclose()
    assert await _is_idle(tiny_runtime)


async def test_a_second_message_of_the_same_tab_waits(chat: Chat) -> None:
    first = _send(chat, max_tokens="200")
    await anext(first)
    assert [update async for update in _send(chat, "Another")] == [(gr.skip(), gr.skip(), gr.skip())]
    assert len([update async for update in first][-1][0]) == 2


async def test_a_blank_message_is_none(chat: Chat) -> None:
    assert [update async for update in _send(chat, " \n")] == [(gr.skip(), gr.skip(), gr.skip())]


async def test_an_error_before_the_answer_gives_the_message_back() -> None:
    def overloaded() -> Runtime:
        raise Overloaded("256 requests wait already")

    history = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]
    (update,) = [update async for update in _send(Chat(overloaded), "Hello", history=history)]
    assert update[0] == history
    assert update[1] == gr.update(value="Hello", submit_btn=True, stop_btn=False)
    assert "256 requests wait already" in update[2]


async def test_an_answer_without_a_word_gives_the_message_back(chat: Chat) -> None:
    updates = [update async for update in _send(chat, "Hello", max_tokens="0")]
    assert updates[-1][0] == []
    assert updates[-1][1] == gr.update(value="Hello", submit_btn=True, stop_btn=False)


async def test_an_engine_that_fails_meanwhile_leaves_what_came_and_one_line(chat: Chat, tiny_runtime: Runtime) -> None:
    last: Any = None
    async for last in _send(chat, max_tokens="1000"):
        if len(last[0][-1]["content"]) > 3:
            tiny_runtime.close()
    assert len(last[0][-1]["content"]) > 3
    assert 'role="alert"' in last[2]
