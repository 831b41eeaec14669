"""A real server on a loopback port, with the demo model behind it."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvicorn
from fastapi import FastAPI
from request_bodies import ALIAS, MODEL

from tapster.runtime.engines.llamacpp.config import LlamaCppConfig
from tapster.runtime.runtime import Runtime
from tapster.server.http.app import create_app
from tapster.server.http.holder import ModelHolder
from tapster.server.http.settings import HttpSettings


@dataclass(frozen=True)
class Served:
    """A running server, and what is behind it, for what no endpoint tells."""

    url: str
    runtime: Runtime
    holder: ModelHolder

    def client(self) -> httpx.Client:
        """A plain client."""
        return httpx.Client(base_url=self.url, timeout=120)

    def wait_for(self, condition: Callable[[dict[str, int]], bool], timeout_s: float = 40) -> bool:
        """Whether the engine's counts meet the condition, soon enough."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if condition(self.runtime.stats()):
                return True
            time.sleep(0.01)
        return False

    def is_idle(self) -> bool:
        """Whether the engine has nothing left to do, soon enough."""
        return self.wait_for(lambda stats: stats["running"] == stats["waiting"] == 0)


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """The app's URL while uvicorn serves it, in a thread."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="none", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the server ended while starting"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(20)


@contextmanager
def serving(path: Path, config: LlamaCppConfig | None = None, chat_template: str | None = None) -> Iterator[Served]:
    """A server of its own for the demo model."""
    holder = ModelHolder()
    holder.load(lambda: Runtime.open(path, config=config, chat_template=chat_template))
    assert holder.runtime is not None
    try:
        with running(create_app(holder, HttpSettings(model_name=MODEL, aliases=(ALIAS,)))) as url:
            yield Served(url, holder.runtime, holder)
    finally:
        holder.runtime.close()
