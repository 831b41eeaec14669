"""The API and the page on a real server, in a thread of this process."""

import asyncio
import json
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvicorn

from tapster.runtime.runtime import Runtime
from tapster.server.http.app import create_app
from tapster.server.http.holder import ModelHolder
from tapster.server.http.settings import HttpSettings
from tapster.server.page.mount import attach_page

T = TypeVar("T")


class PageServer:
    """The API and the page for one runtime, on an event loop in a thread of its own."""

    def __init__(self, runtime: Runtime) -> None:
        self.holder = ModelHolder()
        self.holder.load(lambda: runtime)
        self.runtime = runtime
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        app = create_app(self.holder, HttpSettings())
        self._page = attach_page(app)
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none", lifespan="off"))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "PageServer":
        self._thread.start()
        self.wait_until(lambda: self._server.started and self._page.is_open, 120)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        self._socket.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def num_running(self) -> int:
        """How many sequences the engine has."""
        stats = self.runtime.stats()
        return stats["running"] + stats["waiting"]

    def is_alive(self) -> bool:
        """Whether the API answers."""
        with urllib.request.urlopen(f"{self.url}/v1/models", timeout=20) as response:
            return bool(json.load(response)["data"])

    def wait_until(self, is_so: Callable[[], bool], timeout_s: float = 30) -> None:
        """Return once ``is_so()``; fail when it takes too long."""
        deadline = time.monotonic() + timeout_s
        while not is_so():
            assert self._thread.is_alive(), "the server has ended"
            assert time.monotonic() < deadline, f"still not so after {timeout_s} s"
            time.sleep(0.02)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        opening = asyncio.create_task(self._page.open(self.holder.require))
        await self._server.serve(sockets=[self._socket])
        await opening
        await self._page.close()
