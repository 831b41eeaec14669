"""Clients that go away: their sequences are freed at once, and nobody else notices."""

import socket
import threading
from typing import Any

import httpx
import pytest
from live_server import Served
from request_bodies import chat, completion, events

# Longer than any test waits: whatever ends earlier was cancelled.
ENDLESS = {"max_tokens": 7500, "ignore_eos": True}


def send(served: Served, url: str, body: dict[str, Any]) -> socket.socket:
    """A connection on which the request was sent and nothing was read."""
    request = httpx.Request("POST", f"{served.url}{url}", json=body)
    connection = socket.create_connection((request.url.host, request.url.port or 80), timeout=30)
    head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    connection.sendall(f"POST {url} HTTP/1.1\r\n{head}\r\n".encode() + request.content)
    return connection


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("n", [1, 3])
def test_gone_in_decode(served: Served, stream: bool, n: int) -> None:
    with send(served, "/v1/chat/completions", chat(**ENDLESS, stream=stream, n=n)) as connection:
        if stream:
            assert connection.recv(10) == b"HTTP/1.1 2"
        assert served.wait_for(lambda stats: stats["running"] == n)
    assert served.is_idle()


@pytest.mark.parametrize("stream", [True, False])
def test_gone_in_prefill(served: Served, stream: bool) -> None:
    body = completion(prompt="A long and winding prompt. " * 1100, **{**ENDLESS, "max_tokens": 500}, stream=stream)
    with send(served, "/v1/completions", body):
        assert served.wait_for(lambda stats: stats["running"] == 1)
    assert served.is_idle()


def test_gone_while_waiting(narrow: Served, narrow_http: httpx.Client) -> None:
    with send(narrow, "/v1/chat/completions", chat(**ENDLESS, stream=True)) as running:
        assert running.recv(10) == b"HTTP/1.1 2"
        for stream in (True, False):
            with send(narrow, "/v1/chat/completions", chat(**ENDLESS, stream=stream)):
                assert narrow.wait_for(lambda stats: stats["waiting"] == 1)
            assert narrow.wait_for(lambda stats: stats["waiting"] == 0)
        assert narrow.runtime.stats()["running"] == 1
        assert running.recv(10)
    assert narrow.is_idle()


def test_the_others_go_on(served: Served, http: httpx.Client) -> None:
    answers: list[httpx.Response] = []

    def ask() -> None:
        body = chat(stream=True, max_tokens=40, ignore_eos=True)
        with served.client() as client:
            answers.append(client.post("/v1/chat/completions", json=body))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        with send(served, "/v1/chat/completions", chat(**ENDLESS, stream=True)) as connection:
            connection.recv(10)
    for thread in threads:
        thread.join()
    for answer in answers:
        choices = [chunk["choices"][0] for chunk in events(answer)]
        assert choices[-1]["finish_reason"] == "length"
    assert len(answers) == 3
    assert served.is_idle()


def test_gone_in_the_middle_of_a_body(served: Served, http: httpx.Client) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    for _ in range(3):
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            head = "POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
            connection.sendall(head.encode() + b'{"content": ')
    assert http.get("/health").status_code == 200


def test_gone_while_embedding(served: Served) -> None:
    body = {"model": "demo", "input": ["A long and winding text. " * 1000] * 3}
    with send(served, "/v1/embeddings", body):
        pass
    assert served.is_idle()
    with served.client() as client:
        assert client.post("/v1/completions", json=completion(max_tokens=1)).status_code == 200
