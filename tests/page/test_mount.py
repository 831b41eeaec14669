"""The page's place in the API: before it is there, when it is there, and when it cannot be."""

import asyncio
import logging
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from tapster.runtime.errors import EngineError
from tapster.runtime.runtime import Runtime
from tapster.server.http.app import create_app
from tapster.server.http.holder import ModelHolder
from tapster.server.http.settings import HttpSettings
from tapster.server.page.build import CONTENT_SECURITY_POLICY
from tapster.server.page.mount import Page, attach_page

KEY = "sk-right"


class Door:
    """The API with a page that can be opened, and a client in front."""

    def __init__(self, runtime: Runtime) -> None:
        self.holder = ModelHolder()
        self.holder.load(lambda: runtime)
        app = create_app(self.holder, HttpSettings())
        self.page: Page = attach_page(app)
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")

    async def status(self, path: str, method: str = "GET") -> int:
        return (await self.client.request(method, path)).status_code


@pytest.fixture(scope="module")
def runtime(tiny_model: Path) -> Iterator[Runtime]:
    runtime = Runtime.open(tiny_model, chat_template="chatml")
    yield runtime
    runtime.close()


@pytest.fixture
async def door(runtime: Runtime) -> AsyncIterator[Door]:
    door = Door(runtime)
    yield door
    await door.client.aclose()
    await door.page.close()


async def test_until_the_page_is_there_a_note_reloads_itself_and_needs_nothing_else(door: Door) -> None:
    answer = await door.client.get("/")
    assert answer.status_code == 200
    assert 'http-equiv="refresh"' in answer.text
    assert "<script" not in answer.text
    assert "http://" not in answer.text
    assert "https://" not in answer.text
    assert await door.status("/assets/index.js") == 404


async def test_the_api_answers_while_the_page_is_being_built(door: Door) -> None:
    may_go_on = threading.Event()

    def slow() -> Runtime:
        may_go_on.wait(60)
        return door.holder.require()

    opening = asyncio.create_task(door.page.open(slow))
    assert await door.status("/v1/models") == 200
    assert not door.page.is_open
    may_go_on.set()
    await opening
    assert door.page.is_open


async def test_the_page_takes_its_own_paths_and_leaves_the_others_to_the_api(door: Door) -> None:
    closed = ("/gradio_api/upload", "/gradio_api/info", "/gradio_api/file=/etc/passwd", "/monitoring", "/nowhere")
    before = {path: await door.status(path) for path in closed}
    await door.page.open(door.holder.require)
    page = await door.client.get("/")
    assert "gradio_config" in page.text
    assert page.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert await door.status("/theme.css") == 200
    assert await door.status("/v1/models") == 200
    assert await door.status("/docs") == 200
    assert await door.status("/v1/chat/completions") == 405
    assert {path: await door.status(path) for path in closed} == before
    assert "content-security-policy" not in (await door.client.get("/v1/models")).headers


async def test_other_sites_may_not_read_the_page(door: Door) -> None:
    await door.page.open(door.holder.require)
    answer = await door.client.get("/config", headers={"Origin": "http://elsewhere.example"})
    assert "access-control-allow-origin" not in answer.headers


async def test_with_api_keys_the_page_asks_for_one(door: Door) -> None:
    await door.page.open(door.holder.require, api_keys=("sk-other", KEY))
    assert await door.status("/config") == 401
    assert await door.status("/gradio_api/queue/data?session_hash=x") == 401
    assert "SmolLM2" not in (await door.client.get("/")).text
    wrong = await door.client.post("/login", data={"username": "me", "password": "sk-wrong"})
    assert wrong.status_code == 400
    right = await door.client.post("/login", data={"username": "me", "password": KEY})
    assert right.status_code == 200
    assert await door.status("/config") == 200


async def test_without_gradio_the_api_goes_on_and_the_page_says_what_is_missing(
    door: Door, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with caplog.at_level(logging.WARNING):
        await door.page.open(door.holder.require)
    answer = await door.client.get("/")
    assert answer.status_code == 503
    assert "Gradio is not installed (pip install" in answer.text
    assert "refresh" not in answer.text
    assert "Gradio is not installed" in caplog.text
    assert await door.status("/v1/models") == 200


async def test_whatever_fails_is_one_line_at_the_root(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Runtime:
        raise EngineError("two\nlines & more")

    await door.page.open(broken)
    answer = await door.client.get("/")
    assert answer.status_code == 503
    assert "There is no chat page: EngineError: two lines &amp; more" in answer.text
    assert "EngineError" in caplog.text
    assert not door.page.is_open
    assert await door.status("/v1/models") == 200


async def test_a_closed_page_is_gone(door: Door) -> None:
    await door.page.open(door.holder.require)
    await door.page.close()
    assert await door.status("/theme.css") == 404
