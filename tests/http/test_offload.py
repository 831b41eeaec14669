"""Large requests are prepared beside the event loop; small ones on it."""

import asyncio
import threading
from typing import Any

import httpx
import pytest
from live_server import Served
from request_bodies import chat, completion

from tapster.server.http.offload import INLINE_BYTES

LONG = "word " * 9000
"""Beyond what is prepared at once, and beyond the context: it is tokenized, refused, and never computed."""
REQUESTS = {
    "/v1/chat/completions": lambda text: chat(messages=[{"role": "user", "content": text}], max_tokens=1),
    "/v1/completions": lambda text: completion(prompt=text, max_tokens=1),
    "/v1/embeddings": lambda text: {"model": "demo", "input": text},
    "/tokenize": lambda text: {"content": text},
}


def is_on_loop() -> bool:
    """Whether the caller holds up the event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("url", REQUESTS)
def test_only_large_requests_leave_the_loop(
    served: Served, http: httpx.Client, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    tokenizer = served.runtime.engine.tokenizer
    encode, places = tokenizer.encode, []

    def noted(*args: Any, **kwargs: Any) -> list[int]:
        places.append(is_on_loop())
        return encode(*args, **kwargs)

    monkeypatch.setattr(tokenizer, "encode", noted)
    assert len(LONG) > INLINE_BYTES
    for text in ("short", LONG):
        http.post(url, json=REQUESTS[url](text))
    assert places == [True, False]


def test_a_large_template_leaves_the_loop(served: Served, http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    render, places = served.runtime.render, []

    def noted(*args: Any, **kwargs: Any) -> str:
        places.append(is_on_loop())
        return render(*args, **kwargs)

    monkeypatch.setattr(served.runtime, "render", noted)
    prompts = []
    for text in ("short", LONG):
        body = {"messages": [{"role": "user", "content": text}]}
        prompts.append(http.post("/apply-template", json=body).json()["prompt"])
    assert places == [True, False]
    assert prompts[0].replace("short", LONG) == prompts[1]


def test_many_large_prompts_at_once_are_the_same_tokens(http: httpx.Client) -> None:
    """The vocabulary is only read, so threads may share it."""
    alone = tuple(http.post("/tokenize", json={"content": LONG}).json()["tokens"])
    results: list[tuple[int, ...]] = []

    def ask() -> None:
        results.append(tuple(httpx.post(http.base_url.join("/tokenize"), json={"content": LONG}).json()["tokens"]))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(results) == {alone}
    assert len(results) == 6
