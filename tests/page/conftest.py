"""The page with the demo model behind it, and a real browser in front."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from chat_page import ChatPage, OpenTab
from page_server import PageServer

from tapster.runtime.runtime import Runtime

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
CHROMIUM_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def server(demo_model: Path) -> Iterator[PageServer]:
    runtime = Runtime.open(demo_model)
    with PageServer(runtime) as server:
        yield server
    runtime.close()


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not Path(CHROMIUM).exists():
        pytest.skip("chromium is not installed: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_tab(server: PageServer, browser: "Browser") -> Iterator[OpenTab]:
    """Opens the page in a browser of its own. Afterwards: no error was logged, and nothing but the server was asked."""
    tabs: list[ChatPage] = []

    def open_tab(url: str | None = None, width: int = 1280, height: int = 800, **options: Any) -> ChatPage:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(60_000)
        tabs.append(ChatPage(context.new_page(), url or server.url))
        return tabs[-1]

    yield open_tab
    for tab in tabs:
        tab.page.context.close()
        assert tab.problems == []
