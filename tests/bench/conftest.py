"""A server that streams words, well or badly."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse


def event(**fields: object) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def text_event(text: str, finish_reason: str | None = None) -> bytes:
    return event(choices=[{"index": 0, "text": text, "finish_reason": finish_reason}])


DONE = b"data: [DONE]\n\n"


class StreamServer:
    """An OpenAI-compatible server on a thread of its own; the model's name says how it behaves.

    ``plain`` streams well. ``strict`` refuses ignore_eos and counts nothing. ``cut`` tears events apart.
    ``breaks`` closes the connection in mid-stream, ``hangs`` sends one event and no more.
    """

    def __init__(self) -> None:
        self.bodies: list[dict] = []
        app = FastAPI()
        app.get("/v1/models")(self.models)
        app.post("/v1/completions", response_model=None)(self.answer)
        app.post("/v1/chat/completions", response_model=None)(self.answer)
        config = uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=0)
        self._server = uvicorn.Server(config)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})
        self._thread.start()

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(timeout=20)
        assert not self._thread.is_alive()

    def models(self) -> dict:
        return {"object": "list", "data": [{"id": "plain", "object": "model"}]}

    async def answer(self, request: Request) -> StreamingResponse | JSONResponse:
        body = await request.json()
        self.bodies.append(body)
        if request.headers.get("authorization", "Bearer good") != "Bearer good":
            return JSONResponse({"error": {"message": "wrong key"}}, 401)
        if body["model"] == "strict" and ("ignore_eos" in body or "stream_options" in body):
            return JSONResponse({"error": {"message": "unknown field"}}, 400)
        if body["model"] == "absent":
            return JSONResponse({"error": {"message": "no model absent here"}}, 404)
        return StreamingResponse(self.stream(body), media_type="text/event-stream")

    async def stream(self, body: dict) -> AsyncIterator[bytes]:
        behaviour, count = body["model"], body["max_tokens"]
        for index in range(count):
            data = self.piece(body, f" w{index}", "length" if index == count - 1 else None)
            for part in [data[:9], data[9:-1], data[-1:]] if behaviour == "cut" else [data]:
                yield part
                await asyncio.sleep(0)
            if behaviour == "breaks" and index == 2:
                raise ConnectionAbortedError
            if behaviour == "hangs":
                await asyncio.sleep(30)
        if "stream_options" in body:
            yield event(choices=[], usage={"prompt_tokens": 5, "completion_tokens": count})
        yield DONE

    @staticmethod
    def piece(body: dict, text: str, finish_reason: str | None) -> bytes:
        if "messages" in body:
            return event(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}])
        return text_event(text, finish_reason)


@pytest.fixture
def stream_server() -> Iterator[StreamServer]:
    server = StreamServer()
    yield server
    server.close()
