"""GET /v1/models and GET /v1/models/{id}."""

from typing import Any

from fastapi import APIRouter, Request

from ..body import JsonRoute
from ..schema.models import ListModelsResponse, Model
from ..served import Served, served_model

router = APIRouter(route_class=JsonRoute, prefix="/v1/models", tags=["OpenAI"])


@router.head("", include_in_schema=False)
@router.get("", response_model=ListModelsResponse)
async def list_models(request: Request) -> dict[str, Any]:
    """The served model."""
    return {"object": "list", "data": [_model(served_model(request, None))]}


@router.head("/{model:path}", include_in_schema=False)
@router.get("/{model:path}", response_model=Model)
async def retrieve_model(model: str, request: Request) -> dict[str, Any]:
    """The model of this name."""
    return _model(served_model(request, model))


def _model(served: Served) -> dict[str, Any]:
    return {"id": served.model_id, "object": "model", "created": served.created, "owned_by": "tapster"}
