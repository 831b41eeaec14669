"""Tokenizing, detokenizing and templates over HTTP, and the OpenAPI document."""

import re

import httpx
import pytest
from request_bodies import chat


@pytest.mark.parametrize("text", ["", "Hello, world", "Ünïcode 🎉 \x00", "<|im_start|>user\n", "word " * 4000])
def test_text_comes_back(http: httpx.Client, text: str) -> None:
    tokens = http.post("/tokenize", json={"content": text}).json()["tokens"]
    assert http.post("/detokenize", json={"tokens": tokens}).json() == {"content": text}
    assert http.post("/tokenize", json={"prompt": text}).json()["tokens"] == tokens


def test_control_tokens_are_read_unless_told_not_to(http: httpx.Client) -> None:
    read = http.post("/tokenize", json={"content": "<|im_end|>"}).json()["tokens"]
    spelt = http.post("/tokenize", json={"content": "<|im_end|>", "parse_special": False}).json()["tokens"]
    assert len(read) == 1 < len(spelt)


def test_pieces_are_text_or_bytes(http: httpx.Client) -> None:
    tokens = http.post("/tokenize", json={"content": "a 🎉", "with_pieces": True}).json()["tokens"]
    pieces = [token["piece"] for token in tokens]
    assert any(isinstance(piece, list) for piece in pieces)
    joined = b"".join(piece.encode() if isinstance(piece, str) else bytes(piece) for piece in pieces)
    assert joined.decode() == "a 🎉"


def test_the_applied_template_is_what_a_chat_gets(http: httpx.Client) -> None:
    prompt = http.post("/apply-template", json={"messages": chat()["messages"]}).json()["prompt"]
    count = len(http.post("/tokenize", json={"content": prompt}).json()["tokens"])
    answer = http.post("/v1/chat/completions", json=chat(max_tokens=1)).json()
    assert answer["usage"]["prompt_tokens"] == count


def test_the_document_is_complete(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["description"], path
            assert "$ref" in operation["responses"]["200"]["content"]["application/json"]["schema"], path
            assert operation["responses"]["4XX"], path
            assert operation["responses"]["5XX"], path
    for path in ("/v1/chat/completions", "/v1/completions"):
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        fields = schemas[body["$ref"].rpartition("/")[2]]["properties"]
        assert {"model", "stop", "logit_bias", "user", "repeat_penalty"} <= fields.keys()
        events = document["paths"][path]["post"]["responses"]["200"]["content"]["text/event-stream"]["schema"]
        assert events["$ref"].rpartition("/")[2] in schemas
    for name in _references(document):
        assert name in schemas


def test_the_documentation_needs_no_internet(http: httpx.Client) -> None:
    page = http.get("/docs").text
    files = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(files) >= 2
    for file in files:
        assert file.startswith("/docs/static/")
        assert http.get(file).status_code == 200
    assert "http://" not in page
    assert "https://" not in page


def _references(value: object) -> set[str]:
    """The names of all schemas that are referred to."""
    if isinstance(value, dict):
        own = {value["$ref"].rpartition("/")[2]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(_references, value.values()))
    return set().union(*map(_references, value)) if isinstance(value, list) else set()
