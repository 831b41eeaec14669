"""Schemas as grammars: what is refused, and that answers follow what is not."""

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from live_server import Served
from request_bodies import chat

from tapster.runtime.engines.local.engine import LocalEngine
from tapster.runtime.errors import RequestError
from tapster.server.http.errors import ApiError
from tapster.server.http.json_grammar import schema_grammar


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "integer", "minimum": 0}, 'schema: the keyword "minimum" is not supported'),
        ({"type": "string", "pattern": "a+"}, 'the keyword "pattern"'),
        ({"type": "string", "format": "email"}, '"email" must be one of date, time'),
        ({"type": "string", "format": ["date"]}, "must be one of"),
        ({"type": "string", "maxLength": -1}, "must be whole numbers, not -1"),
        ({"type": "string", "maxLength": True}, "must be whole numbers, not true"),
        ({"type": "string", "maxLength": 10**6}, "up to 2000, not 1000000"),
        ({"type": "string", "minLength": 5, "maxLength": 4}, "minLength 5 is more than maxLength 4"),
        ({"type": "float"}, 'the type "float" is not known'),
        ({"type": ["string", 5]}, "the type 5 is not known"),
        ({"not": {}}, 'the keyword "not"'),
        ({"$ref": "http://elsewhere"}, "does not point into the schema itself"),
        ({"$ref": "#/$defs/a"}, "points at nothing"),
        ({"enum": []}, "must be a list that is not empty"),
        ({"anyOf": [{"type": "null"}], "type": "null"}, 'the keyword "type"'),
        ({"allOf": [{}, {}]}, "only one schema"),
        ({"properties": {"a": {"type": "object", "patternProperties": {}}}}, "schema.properties.a: the keyword"),
        ({"type": "object", "properties": [1]}, "properties must be an object"),
        ({"type": "object", "required": [[]]}, "required a list of names"),
        ({"type": "object", "required": ["a"], "additionalProperties": False}, "false is not a schema"),
        ({"type": "array", "items": 5}, "schema.items: 5 is not a schema"),
        ({"properties": {str(idx): {"maxLength": 100} for idx in range(90)}}, "more than a grammar can expand"),
        ({"properties": {str(idx): {} for idx in range(900)}}, "more than 2000 grammar rules"),
    ],
)
def test_what_a_grammar_cannot_say_is_refused(schema: dict[str, Any], message: str) -> None:
    with pytest.raises((ApiError, RequestError)) as caught:
        schema_grammar(schema, "response_format")
    assert message in str(caught.value)
    assert caught.value.param == "response_format"


TREE = {
    "$defs": {"node": {"properties": {"name": {"enum": ["x", "y"]}, "next": {"$ref": "#/$defs/node"}}}},
    "type": "object",
    "properties": {"root": {"$ref": "#/$defs/node"}, "done": {"const": True}},
    "required": ["root", "done"],
}


@pytest.mark.parametrize(
    ("schema", "types"),
    [
        ({"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "null"}}}, dict),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, dict),
        ({"type": "object", "additionalProperties": False}, dict),
        ({"type": "object", "required": ["k"], "additionalProperties": {"type": "boolean"}}, dict),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3}, list),
        ({"type": "array", "maxItems": 0}, list),
        ({"type": "string", "minLength": 2, "maxLength": 6}, str),
        ({"type": "string", "format": "date-time"}, str),
        ({"type": "string", "format": "uuid"}, str),
        ({"type": "number"}, (int, float)),
        ({"type": ["integer", "null"], "title": "Age"}, (int, type(None))),
        ({"anyOf": [{"type": "boolean"}, {"const": 'a"\\\n'}]}, (bool, str)),
        ({"oneOf": [{"enum": [1, "two", None]}]}, (int, str, type(None))),
        ({"allOf": [{"type": "boolean"}]}, bool),
        (TREE, dict),
    ],
)
def test_answers_follow_the_schema(http: httpx.Client, schema: dict[str, Any], types: type) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
    value = _whole_answer(http, chat(response_format=form, max_tokens=120, temperature=1.2))
    assert isinstance(value, types)
    _check(schema, value, schema)


def _whole_answer(http: httpx.Client, body: dict[str, Any]) -> Any:
    """The value that a hot model makes; from the first seed with which it comes to an end."""
    for seed in range(8):
        choice = http.post("/v1/chat/completions", json={**body, "seed": seed}).json()["choices"][0]
        if choice["finish_reason"] == "stop":
            return json.loads(choice["message"]["content"])
    pytest.fail("the model never comes to an end")


def _check(schema: dict[str, Any], value: Any, root: dict[str, Any]) -> None:
    """A slow, obvious reading of the keywords that the cases above use."""
    if "$ref" in schema:
        schema = root["$defs"]["node"]
    if "enum" in schema:
        assert value in schema["enum"]
    if "const" in schema:
        assert value == schema["const"]
    if isinstance(value, dict):
        assert set(schema.get("required", ())) <= value.keys()
        for name, member in value.items():
            others = schema.get("additionalProperties", True)
            inner = schema.get("properties", {}).get(name, others)
            assert inner is not False
            _check(inner if isinstance(inner, dict) else {}, member, root)
    if isinstance(value, list):
        assert schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
        for item in value:
            _check(schema.get("items", {}), item, root)
    if isinstance(value, str) and "maxLength" in schema:
        assert schema["minLength"] <= len(value) <= schema["maxLength"]
    if schema.get("type") == "integer":
        assert isinstance(value, int)


def test_json_object_is_an_object(http: httpx.Client) -> None:
    messages = [{"role": "user", "content": 'Repeat this: {"city": "Paris"}'}]
    body = chat(messages=messages, response_format={"type": "json_object"}, max_tokens=200)
    choice = http.post("/v1/chat/completions", json=body).json()["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert isinstance(json.loads(choice["message"]["content"]), dict)


def test_an_endless_schema_is_refused(http: httpx.Client) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "it", "schema": {"anyOf": [{"$ref": "#"}]}}}
    response = http.post("/v1/chat/completions", json=chat(response_format=form))
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "response_format.json_schema.schema"


def test_an_engine_without_grammars_says_so(
    own_server: Callable[[], AbstractContextManager[Served]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with own_server() as served, served.client() as client:
        engine: Any = served.runtime.engine
        monkeypatch.setattr(engine, "capabilities", replace(engine.capabilities, name="onnx", grammar=False))
        monkeypatch.setattr(engine, "_sampler", lambda params: LocalEngine._sampler(engine, params))
        for form in ({"type": "json_object"}, {"type": "json_schema", "json_schema": {"name": "it", "schema": {}}}):
            error = client.post("/v1/chat/completions", json=chat(response_format=form)).json()["error"]
            assert error["param"] == "response_format"
            assert "the onnx engine has no grammars" in error["message"]
