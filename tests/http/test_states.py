"""What the server says while it loads, drains, is full or has failed; keys, origins and request ids."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager

import httpx
import pytest
from live_server import Served, running
from request_bodies import chat, completion

from tapster.runtime.engines.llamacpp.engine import LlamaCppEngine
from tapster.runtime.errors import ConfigError, ModelError
from tapster.runtime.runtime import Runtime
from tapster.server.http.app import create_app
from tapster.server.http.holder import ModelHolder
from tapster.server.http.settings import HttpSettings

KEY = "secret-key"
AUTHORIZED = {"authorization": f"Bearer {KEY}"}


def code_of(response: httpx.Response) -> tuple[int, str]:
    """The status and the error's code."""
    return response.status_code, response.json()["error"]["code"]


def test_from_loading_to_draining(served: Served) -> None:
    holder = ModelHolder()
    with running(create_app(holder, HttpSettings())) as url, httpx.Client(base_url=url) as client:
        assert client.get("/health").json() == {"status": "ok"}
        early = client.get("/ready")
        assert (early.status_code, early.json()["status"]) == (503, "loading")
        for response in (client.get("/v1/models"), client.post("/v1/chat/completions", json=chat())):
            assert code_of(response) == (503, "model_loading")
            assert int(response.headers["retry-after"]) >= 1
        holder.load(lambda: served.runtime)
        name = served.runtime.profile.name
        ready = client.get("/ready").json()
        assert (ready["status"], ready["model"], ready["detail"]) == ("ready", name, None)
        assert ready["engine"]["running"] == 0
        assert client.get("/v1/models").json()["data"][0]["id"] == name
        holder.drain()
        assert client.get("/ready").status_code == 503
        assert code_of(client.post("/v1/chat/completions", json=chat())) == (503, "shutting_down")
        assert client.get("/health").status_code == 200


def test_probes_may_ask_for_the_head_alone(http: httpx.Client) -> None:
    for path in ("/health", "/ready", "/v1/models", "/v1/models/demo"):
        head, whole = http.head(path), http.get(path)
        assert (head.status_code, head.content) == (200, b""), path
        assert head.headers["content-type"] == whole.headers["content-type"]
    assert http.head("/v1/models/other").status_code == 404
    assert http.head("/v1/chat/completions").status_code == 405


def test_a_model_that_cannot_be_loaded() -> None:
    def broken() -> Runtime:
        raise ModelError("no such model")

    holder = ModelHolder()
    with pytest.raises(ModelError):
        holder.load(broken)
    with running(create_app(holder, HttpSettings())) as url, httpx.Client(base_url=url) as client:
        ready = client.get("/ready")
        assert (ready.status_code, ready.json()["detail"]) == (503, "no such model")
        assert code_of(client.get("/v1/models")) == (500, "engine_error")


def test_draining_lets_the_running_ones_finish(own_server: Callable[[], AbstractContextManager[Served]]) -> None:
    with own_server() as served, served.client() as client:
        body = chat(stream=True, max_tokens=60, ignore_eos=True)
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            lines = response.iter_lines()
            next(lines)
            served.holder.drain()
            with served.client() as other:
                assert code_of(other.post("/v1/chat/completions", json=chat())) == (503, "shutting_down")
            assert [line for line in lines if line][-1] == "data: [DONE]"


def test_a_full_queue_is_told_at_once(narrow: Served, narrow_http: httpx.Client) -> None:
    endless = chat(stream=True, max_tokens=6000, ignore_eos=True)
    with narrow.client() as first, first.stream("POST", "/v1/chat/completions", json=endless) as response:
        next(response.iter_lines())
        full = narrow_http.post("/v1/completions", json=completion(prompt=["a"] * 4))
        assert code_of(full) == (429, "overloaded")
        assert int(full.headers["retry-after"]) >= 1
        assert full.json()["error"]["type"] == "rate_limit_error"
        # What had been queued of that request is gone with it.
        assert narrow.wait_for(lambda stats: stats["waiting"] == 0)
    assert narrow.is_idle()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_that_fails(
    own_server: Callable[[], AbstractContextManager[Served]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of luck")

    with own_server() as served, served.client() as client:
        body = chat(stream=True, max_tokens=4000, ignore_eos=True)
        with client.stream("POST", "/v1/chat/completions", json=body) as response:
            lines = response.iter_lines()
            assert next(lines).startswith("data: {")
            assert isinstance(served.runtime.engine, LlamaCppEngine)
            monkeypatch.setattr(served.runtime.engine.scheduler, "step", fail)
            seen = [line for line in lines if line]
        last = json.loads(seen[-1].removeprefix("data: "))
        assert "out of luck" in last["error"]["message"]
        assert last["error"]["code"] == "engine_error"
        assert client.get("/ready").status_code == 503
        assert code_of(client.post("/v1/chat/completions", json=chat())) == (500, "engine_error")
        assert client.get("/health").status_code == 200


def test_a_crash_shows_nothing_of_the_inside(
    served: Served, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise ValueError("inner secret")

    monkeypatch.setattr(served.runtime, "chat", crash)
    # The server closes a connection whose handler crashed, so this one is not to be used again.
    response = http.post("/v1/chat/completions", json=chat(), headers={"connection": "close"})
    assert code_of(response) == (500, "internal_error")
    assert "secret" not in response.text
    assert response.headers["x-request-id"].startswith("req_")
    with httpx.Client(base_url=http.base_url) as fresh:
        assert fresh.get("/ready").status_code == 200


def test_keys(served: Served) -> None:
    holder = ModelHolder()
    holder.load(lambda: served.runtime)
    app = create_app(holder, HttpSettings(api_keys=("other", KEY)))
    with running(app) as url, httpx.Client(base_url=url) as client:
        assert client.get("/health").status_code == client.get("/ready").status_code == 200
        assert client.get("/v1/models", headers=AUTHORIZED).status_code == 200
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": KEY},
            {"authorization": f"Basic {KEY}"},
        ):
            for path in ("/v1/models", "/v1/nothing", "/tokenize", "/apply-template"):
                refused = client.post(path, headers=headers, json={})
                assert code_of(refused) == (401, "invalid_api_key")
                assert refused.headers["www-authenticate"] == "Bearer"
        document = client.get("/openapi.json").json()
        assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"


def test_origins(served: Served, http: httpx.Client) -> None:
    asking = {"origin": "http://page", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in http.get("/health", headers=asking).headers
    app = create_app(ModelHolder(), HttpSettings(cors_origins=("http://page",), api_keys=(KEY,)))
    with running(app) as url, httpx.Client(base_url=url) as client:
        allowed = client.options("/v1/chat/completions", headers=asking)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "http://page"
        other = client.options("/v1/chat/completions", headers={**asking, "origin": "http://other"})
        assert "access-control-allow-origin" not in other.headers


def test_every_response_has_a_request_id(http: httpx.Client) -> None:
    responses = [
        http.get("/health"),
        http.get("/v1/nothing"),
        http.post("/v1/completions", content=b"{"),
        http.post("/v1/chat/completions", json=chat(stream=True)),
    ]
    ids = {response.headers["x-request-id"] for response in responses}
    assert len(ids) == len(responses)
    assert all(one.startswith("req_") for one in ids)
    assert http.get("/health", headers={"x-request-id": "mine-1"}).headers["x-request-id"] == "mine-1"
    assert http.get("/health", headers={"x-request-id": "a b"}).headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_body_bytes": 0}, "--max-body-bytes"),
        ({"max_choices": 0}, "--max-choices"),
        ({"api_keys": ("",)}, "API key"),
        ({"api_keys": ("two words",)}, "API key"),
    ],
)
def test_settings_that_make_no_sense(settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        HttpSettings(**settings)
