"""A serving process from start to end: the socket first, the model beside the imports, the page last."""

import asyncio
import errno
import logging
import math
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..runtime.errors import ConfigError, EngineError
from ..runtime.profile import ModelProfile
from .http.settings import HttpSettings

if TYPE_CHECKING:
    from ..runtime.engines.config import EngineConfig
    from ..runtime.runtime import Runtime
    from .http.holder import ModelHolder

log = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 0.0005
"""How long one thread may keep Python to itself while another waits: the engine's thread should not wait 5 ms."""
_ENGINE_FAILED = 1
_INTERRUPTED = 130
_DRAIN_POLL_S = 0.05
_LAST_WRITES_S = 5
"""How long connections get to send what has been written for them."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen."""

    host: str
    port: int

    def bind(self) -> socket.socket:
        """A listening socket. Raises ConfigError when that address or port cannot be had."""
        try:
            family = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0][0]
            return socket.create_server((self.host, self.port), family=family, backlog=1024)
        except (OSError, OverflowError) as error:
            in_use = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            reason = "it is in use" if in_use else str(error).removeprefix("bind(): ").rstrip(".")
            raise ConfigError(
                f"cannot listen on {self.host} port {self.port}: {reason}; choose another with --host and --port"
            ) from error


def serve(
    profile: ModelProfile,
    address: Address,
    *,
    engine: str | None,
    config: "EngineConfig",
    http: HttpSettings,
    has_page: bool,
    drain_s: float,
    announce: Callable[[str], object],
) -> int:
    """Serve a model until SIGINT, SIGTERM or an engine failure. Returns the exit status. ConfigError, ModelError.

    The engine loads in a thread while this one imports the HTTP stack.
    """
    if not 0 <= drain_s < math.inf:
        raise ConfigError(f"--drain-s must be a number of seconds of at least 0, not {drain_s:g}")
    listener = address.bind()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    loading = _Loading(profile, config, engine)
    from .http.app import create_app
    from .http.holder import ModelHolder

    holder = ModelHolder()
    app = create_app(holder, http)
    server = _server(app)
    service = _Service(server, holder, loading, announce, drain_s)
    if has_page:
        from .page.mount import attach_page

        service.page = attach_page(app)
        service.page_keys = http.api_keys
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(service.run(listener))
    finally:
        listener.close()
        loading.close()
    return service.exit_status()


class _Loading:
    """The engine being loaded on a thread of its own."""

    def __init__(self, profile: ModelProfile, config: "EngineConfig", engine: str | None) -> None:
        self._profile = profile
        self._config = config
        self._engine = engine
        self._runtime: Runtime | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._load, name="tapster-load", daemon=True)
        self._thread.start()

    def wait(self) -> "Runtime":
        """The runtime, when it is there. Raises what loading raised."""
        self._thread.join()
        if self._error:
            raise self._error
        assert self._runtime is not None
        return self._runtime

    def close(self) -> None:
        """Free the model."""
        self._thread.join()
        if self._runtime:
            self._runtime.close()

    def _load(self) -> None:
        from ..runtime.runtime import Runtime

        try:
            self._runtime = Runtime.load(self._profile, self._config, engine=self._engine)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
            self._error = error


class _Service:
    """The running server: becomes ready, drains at a signal, ends when the engine does."""

    def __init__(
        self,
        server: Any,
        holder: "ModelHolder",
        loading: _Loading,
        announce: Callable[[str], object],
        drain_s: float,
    ) -> None:
        self.page: Any = None
        self.page_keys: tuple[str, ...] = ()
        self._server = server
        self._holder = holder
        self._loading = loading
        self._announce = announce
        self._drain_s = drain_s
        self._load_error: BaseException | None = None
        self._engine_error: EngineError | None = None
        self._is_draining = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, self._on_signal)
        self._spawn(self._get_ready(listener))
        await self._server.serve(sockets=[listener])
        if self.page is not None:
            await self.page.close()

    def exit_status(self) -> int:
        """0 after a drain, 1 when the engine failed. Raises what loading raised."""
        if self._load_error:
            raise self._load_error
        return _ENGINE_FAILED if self._engine_error else 0

    async def _get_ready(self, listener: socket.socket) -> None:
        try:
            await asyncio.to_thread(self._holder.load, self._loading.wait)
        except BaseException as error:  # noqa: BLE001 - raised again by ``exit_status``
            self._load_error = error
            self._server.should_exit = True
            return
        runtime = self._loading.wait()
        runtime.on_failure(self._on_engine_failure)
        host, port = listener.getsockname()[:2]
        where = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._announce(f"{runtime.profile.name} answers on {where}/v1")
        self._announce(f" and chats on {where}/\n" if self.page else "\n")
        for problem in runtime.profile.problems:
            log.warning("%s", problem)
        if self.page:
            await self.page.open(self._holder.require, api_keys=self.page_keys)

    def _on_signal(self) -> None:
        """The first asks for a drain, the second ends at once; while the model loads there is nothing to drain."""
        if self._holder.status == "loading":
            log.info("shutting down: the model was still being loaded")
            os._exit(0)
        if self._is_draining:
            os._exit(_INTERRUPTED)
        self._is_draining = True
        if num_open := self._num_open():
            message = "shutting down: %d running or waiting requests have %g s to finish; another signal ends at once"
            log.info(message, num_open, self._drain_s)
        else:
            log.info("shutting down: no request is running")
        self._holder.drain()
        self._spawn(self._drain())

    async def _drain(self) -> None:
        """Go on listening, and refusing, until what runs has ended or its time is over."""
        runtime, loop = self._holder.runtime, asyncio.get_running_loop()
        end = loop.time() + self._drain_s
        while runtime and self._num_open():
            if loop.time() >= end:
                runtime.abort()
                break
            await asyncio.sleep(min(_DRAIN_POLL_S, max(0.0, end - loop.time())))
        self._server.should_exit = True

    def _num_open(self) -> int:
        """How many requests run or wait."""
        stats = self._holder.runtime.stats() if self._holder.runtime else {}
        return stats.get("running", 0) + stats.get("waiting", 0)

    def _on_engine_failure(self, error: EngineError) -> None:
        log.error("%s", error)
        self._engine_error = error
        self._holder.fail(str(error))
        self._server.should_exit = True

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _server(app: Any) -> Any:
    import contextlib
    from collections.abc import Iterator

    import uvicorn

    class Server(uvicorn.Server):
        """uvicorn without its signal handling, which would end the process by the signal instead of with 0."""

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_LAST_WRITES_S,
        timeout_keep_alive=75,
    )
    return Server(config)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it exists: its sockets cost about half as much as asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
