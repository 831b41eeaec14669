"""A ``tapster serve`` of the benchmark's own: started, waited for, watched, and gone at the end."""

import asyncio
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import IO

from ...runtime.errors import TargetError
from .exchange import Address
from .options import BenchOptions
from .process import child, last_words
from .results import StartUp
from .target import Target, fetch, open_target

_POLL_S = 0.01
_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class OwnServer:
    """A server process that has been started; ``output`` is where it writes."""

    process: subprocess.Popen[bytes]
    address: Address
    started_s: float
    output: IO[bytes]

    def memory_bytes(self) -> int:
        """Resident memory of the process, the model's mapped file included."""
        import psutil

        return psutil.Process(self.process.pid).memory_info().rss

    def check_alive(self) -> None:
        """Raises TargetError with the process's last words when it has ended."""
        if (status := self.process.poll()) is not None:
            raise TargetError(f"the server ended with status {status}: {last_words(self.output)}")

    async def until_ok(self, path: str, timeout_s: float, api_key: str | None = None) -> float:
        """Ask until the path answers 200; seconds since the start of the process."""
        try:
            async with asyncio.timeout(timeout_s):
                while not await self._is_ok(path, api_key):
                    self.check_alive()
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise TargetError(f"the server started here did not answer on {path} within {timeout_s:g} s") from None
        return perf_counter() - self.started_s

    async def _is_ok(self, path: str, api_key: str | None) -> bool:
        try:
            return (await fetch(self.address, path, api_key=api_key)).status == 200
        except TargetError:
            return False


def serve_command(model: str, port: int, extra: Sequence[str] = ()) -> list[str]:
    """``tapster serve`` without the page, which no benchmark needs."""
    serve = [sys.executable, "-m", "tapster.server.cli", "serve", model]
    return [*serve, "--host", _HOST, "--port", str(port), "--no-page", *extra]


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return probe.getsockname()[1]


@contextmanager
def own_server(command: Sequence[str], port: int, env: Mapping[str, str] | None = None) -> Iterator[OwnServer]:
    """The process of ``command``, which is to listen on ``port``. It does not outlive the block."""
    started_s = perf_counter()
    with (
        tempfile.TemporaryFile() as output,
        child(command, stdout=output, env=env) as process,
    ):
        yield OwnServer(process, Address(_HOST, port, is_tls=False, base="/v1"), started_s, output)


@asynccontextmanager
async def served_model(
    options: BenchOptions,
    extra: Sequence[str] = (),
    *,
    with_chat: bool = False,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[tuple[OwnServer, Target, StartUp]]:
    """A server of the model in ``options`` that is warm, the target to measure, and what starting it took.

    An error while it is in use is the server's last words when it has died of it.
    """
    port = free_port()
    with own_server(serve_command(options.what, port, [*options.serve_args, *extra]), port, env) as server:
        models_s = await server.until_ok("/v1/models", options.timeout_s, options.api_key)
        ready_s = await server.until_ok("/ready", options.timeout_s, options.api_key)
        target = await open_target(server.address, options)
        try:
            first, *_ = await target.warm_up(with_chat)
            first_token_s = first.sent_s + (first.ttft_s or 0.0) - server.started_s
            yield server, target, StartUp(models_s, ready_s, first_token_s)
        except TargetError:
            await asyncio.sleep(_POLL_S)  # a connection breaks a moment before its process can be seen to end
            server.check_alive()
            raise
