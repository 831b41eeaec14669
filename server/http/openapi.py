"""The OpenAPI document: what FastAPI finds in the routes, and what it cannot see there."""

from typing import Any

from fastapi import FastAPI

from .schema.chat import CreateChatCompletionStreamResponse
from .schema.completion import CreateCompletionResponse

STREAMED = {
    "/v1/chat/completions": CreateChatCompletionStreamResponse,
    "/v1/completions": CreateCompletionResponse,
}


def complete(app: FastAPI, *, has_keys: bool) -> None:
    """Add the events of streams and the keys to the app's document."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = original()
            _add_streams(schema)
            if has_keys:
                _add_keys(schema)
        return app.openapi_schema or {}

    app.openapi = openapi


def _add_streams(document: dict[str, Any]) -> None:
    for path, model in STREAMED.items():
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        document["components"]["schemas"].update(schema.pop("$defs", {}))
        document["components"]["schemas"].setdefault(model.__name__, schema)
        event = {"$ref": f"#/components/schemas/{model.__name__}"}
        document["paths"][path]["post"]["responses"]["200"]["content"]["text/event-stream"] = {"schema": event}


def _add_keys(document: dict[str, Any]) -> None:
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"key": []}]
