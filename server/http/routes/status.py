"""GET /health and GET /ready."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from ..schema.status import Health, Ready
from ..served import Served

router = APIRouter(tags=["status"])


@router.head("/health", include_in_schema=False)
@router.get("/health", response_model=Health)
async def health() -> dict[str, Any]:
    """The process is alive, whatever the model does."""
    return {"status": "ok"}


@router.head("/ready", include_in_schema=False)
@router.get("/ready", response_model=Ready, responses={503: {"model": Ready}})
async def ready(request: Request) -> JSONResponse:
    """200 when requests are answered; 503 while the model loads, and when the server ends or has failed."""
    holder = request.app.state.holder
    is_ready = holder.status == "ready"
    served = Served(holder.runtime, request.app.state.settings, holder.created) if holder.runtime else None
    body = Ready(
        status=holder.status,
        model=served.model_id if served else None,
        detail=holder.failure,
        engine=holder.runtime.stats() if holder.runtime else None,
    )
    headers = None if is_ready else {"retry-after": "1"}
    return JSONResponse(body.model_dump(), 200 if is_ready else 503, headers)
