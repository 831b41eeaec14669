"""Everything else under /v1: an error object, also when a page is mounted at the root."""

from collections.abc import Sequence

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Route

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]


def fallback(routers: Sequence[APIRouter]) -> APIRouter:
    """A router for the URLs that none of the others answers."""
    router = APIRouter()
    routes = [route for other in routers for route in other.routes if isinstance(route, Route)]

    @router.api_route("/v1/{path:path}", methods=METHODS, include_in_schema=False)
    async def unknown(request: Request) -> Response:
        """405 for a known URL with a wrong method, 404 for an unknown one."""
        partial = [route for route in routes if route.matches(request.scope)[0] == Match.PARTIAL]
        if partial:
            allowed = sorted(method for route in partial for method in route.methods or ())
            raise HTTPException(405, headers={"allow": ", ".join(allowed)})
        raise HTTPException(404)

    return router
