"""The responses of GET /v1/models, after Model and ListModelsResponse of OpenAI's OpenAPI document."""

from typing import Literal

from .base import ResponseModel


class Model(ResponseModel):
    """A served model. ``created`` is when this server began to serve it."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ListModelsResponse(ResponseModel):
    """The served models."""

    object: Literal["list"]
    data: list[Model]
