"""A small HTTP server with real sockets that behaves as a test wants vLLM to misbehave."""

import asyncio
import json
import socket
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

Fields = dict[str, Any]
Act = Callable[["Exchange", Fields], Awaitable[None]]


class ByteTokenizer:
    """A token for every byte, and two that end."""

    vocab_size = 258
    bos_id: int | None = None
    eos_id: int | None = 256
    add_bos = False
    eog_ids = frozenset({256, 257})

    def encode(self, text: str, *, add_special: bool = False, parse_special: bool = True) -> list[int]:
        return list(text.encode())

    def piece(self, token_id: int) -> bytes:
        return bytes([token_id]) if token_id < 256 else b"<end>"

    def is_control(self, token_id: int) -> bool:
        return token_id in self.eog_ids


class Exchange:
    """What an act writes to."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self, status: int = 200, *, headers: Iterable[str] = (), length: int | None = None) -> None:
        framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
        await self.write("\r\n".join([f"HTTP/1.1 {status} X", framing, *headers, "", ""]).encode())

    async def chunk(self, data: bytes) -> None:
        await self.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def event(self, content: Any) -> None:
        await self.chunk(b"data: " + json.dumps(content).encode() + b"\n\n")

    async def token(self, *ids: Any, finish: str | None = None, **more: Any) -> None:
        await self.event({"choices": [{"index": 0, "text": "", "token_ids": ids, "finish_reason": finish, **more}]})

    async def done(self) -> None:
        await self.event({"choices": [], "usage": {"prompt_tokens_details": {"cached_tokens": 3}}})
        await self.chunk(b"data: [DONE]\n\n")
        await self.write(b"0\r\n\r\n")

    async def whole(self, status: int, body: bytes, *headers: str) -> None:
        await self.head(status, headers=headers, length=len(body))
        await self.write(body)

    def drop(self) -> None:
        """Close the connection at once."""
        self.writer.transport.abort()


def says(text: bytes, finish: str = "stop", end: int | None = 256) -> Act:
    """An answer as it should be."""

    async def act(exchange: Exchange, fields: Fields) -> None:
        await exchange.head()
        ids = [*text, end] if end is not None else [*text]
        for index, token in enumerate(ids):
            await exchange.token(token, finish=finish if index == len(ids) - 1 else None)
        await exchange.done()

    return act


def refuses(status: int, body: Any, *headers: str) -> Act:
    """An HTTP error."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def act(exchange: Exchange, fields: Fields) -> None:
        await exchange.whole(status, data, *headers)

    return act


class FakeServer:
    """``acts`` are what the next completions do, ``default`` what all others do. A context manager."""

    def __init__(self, *acts: Act, model: str = "m", context: int = 64, port: int = 0) -> None:
        self.acts = deque(acts)
        self.default: Act = says(b"hello")
        self.model = model
        self.context = context
        self.port = port
        self.root: str | None = "/nowhere"
        self.models: Any = None
        self.more_models: list[Fields] = []
        self.version = "0.32.0"
        self.health = 200
        self.tokens: Sequence[int] | None = None
        self.requests: list[Fields] = []
        self.paths: list[str] = []
        self.headers: list[str] = []
        self.num_connections = 0
        self.num_gone = 0
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> "FakeServer":
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, sock=listener), self._loop
        ).result(10)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Gone, with every connection."""
        if not self._loop.is_closed():
            asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.num_connections += 1
        try:
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                await self._answer(head, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.num_gone += 1
        except asyncio.CancelledError:
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _answer(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = head.split(" ", 2)[1]
        self.paths.append(path)
        self.headers.append(head)
        length = next((int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:")), 0)
        fields = json.loads(await reader.readexactly(length)) if length else {}
        exchange = Exchange(writer)
        if path.endswith("/v1/models"):
            card = {"id": self.model, "root": self.root, "max_model_len": self.context}
            models = self.models or {"data": [card, *self.more_models]}
            await exchange.whole(200, json.dumps(models).encode())
        elif path.endswith("/health"):
            await exchange.whole(self.health, b"")
        elif path.endswith("/version"):
            await exchange.whole(200, json.dumps({"version": self.version}).encode())
        elif path.endswith("/tokenize"):
            tokens = self.tokens if self.tokens is not None else list(fields["prompt"].encode())
            await exchange.whole(200, json.dumps({"tokens": tokens}).encode())
        else:
            self.requests.append(fields)
            act = self.acts.popleft() if self.acts else self.default
            await self._watched(act(exchange, fields), reader)

    async def _watched(self, act: Awaitable[None], reader: asyncio.StreamReader) -> None:
        """An act, which ends when the client closes the connection."""
        doing = asyncio.ensure_future(act)
        gone = asyncio.ensure_future(reader.read(1))
        await asyncio.wait([doing, gone], return_when=asyncio.FIRST_COMPLETED)
        if gone.done() and not doing.done():
            self.num_gone += 1
            doing.cancel()
        gone.cancel()
        with suppress(asyncio.CancelledError, ConnectionError):
            await doing
        with suppress(asyncio.CancelledError, ConnectionError):
            await gone
