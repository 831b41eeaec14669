"""One HTTP request whose answer is kept as bytes with their arrival times.

The client shares the machine with the server it measures, so while a run lasts it only takes a timestamp,
undoes the chunked framing (httptools, in C) and appends; events are cut and JSON is parsed when the run is
over. Per received event this costs about a tenth of httpx's CPU time.
"""

import asyncio
from dataclasses import dataclass
from time import perf_counter
from typing import cast
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpResponseParser

from ...runtime.errors import ConfigError, TargetError

CONNECT_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where an OpenAI-compatible API is. ``base`` is the path before its endpoints, ``/v1`` unless given."""

    host: str
    port: int
    is_tls: bool
    base: str

    @classmethod
    def parse(cls, url: str) -> "Address":
        """The address of ``http://host:port`` or ``http://host:port/v1``. Raises ConfigError."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"{url} is no URL: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url} is no URL: it should look like http://127.0.0.1:8000/v1")
        is_tls = parts.scheme == "https"
        return cls(parts.hostname, port or (443 if is_tls else 80), is_tls, parts.path.rstrip("/") or "/v1")

    @property
    def authority(self) -> str:
        """Host and port as the Host header wants them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self.is_tls else 'http'}://{self.authority}{self.base}"


class Exchange(asyncio.Protocol):
    """A connection for one request. ``body`` is what came: (seconds on the monotonic clock, bytes)."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.body: list[tuple[float, bytes]] = []
        self.sent_s = 0.0
        self.ended_s = 0.0
        self._num_events = 0
        self._wanted_events: int | None = None
        self._progress = asyncio.Event()
        self._ended = asyncio.Event()
        self._parser = HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._now = 0.0

    def send(self, request: bytes) -> None:
        """Write the whole request; its time starts here."""
        assert self._transport is not None
        self.sent_s = perf_counter()
        self._transport.write(request)

    async def until_events(self, count: int) -> None:
        """Wait for ``count`` events, or for the end of the answer if that comes first."""
        self._wanted_events = count
        if self._num_events < count and not self._ended.is_set():
            await self._progress.wait()

    async def until_end(self) -> None:
        """Wait for the end of the answer, or of the connection."""
        await self._ended.wait()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._now = perf_counter()
        try:
            self._parser.feed_data(data)
        except HttpParserError:
            self._end()

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self.body.append((self._now, body))
        self._num_events += body.count(b"data:")
        if self._wanted_events is not None and self._num_events >= self._wanted_events:
            self._progress.set()

    def on_message_complete(self) -> None:
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self._now = self._now or perf_counter()
        self._end()

    def _end(self) -> None:
        if not self._ended.is_set():
            self.ended_s = self._now
            self._ended.set()
            self._progress.set()
        self.close()


async def connect(address: Address) -> Exchange:
    """An open connection, ready to send. Raises TargetError."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, exchange = await loop.create_connection(
                Exchange, address.host, address.port, ssl=True if address.is_tls else None
            )
    except TimeoutError:
        raise TargetError(f"cannot reach {address.url}: no connection within {CONNECT_TIMEOUT_S:g} s") from None
    except OSError as error:
        raise TargetError(f"cannot reach {address.url}: {error.strerror or error}; is the server running?") from None
    return exchange


def request_bytes(address: Address, method: str, path: str, body: bytes = b"", api_key: str | None = None) -> bytes:
    """A whole HTTP request, made before the clock starts."""
    headers = [f"{method} {path} HTTP/1.1", f"Host: {address.authority}", "Connection: close"]
    if body:
        headers += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    if api_key:
        headers.append(f"Authorization: Bearer {api_key}")
    return "\r\n".join([*headers, "", ""]).encode() + body
