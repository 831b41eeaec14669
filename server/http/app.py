"""The application: routes, errors, keys and origins put together."""

from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ...runtime.errors import TapsterError
from .auth import BearerAuth
from .errors import ApiError, as_api_error, error_response, http_error
from .openapi import complete
from .request_id import RequestId
from .routes import chat, completions, embeddings, models, status, text
from .routes.fallback import fallback
from .schema.status import ErrorResponse
from .validation import validation_error

if TYPE_CHECKING:
    from .holder import ModelHolder
    from .settings import HttpSettings


def create_app(holder: "ModelHolder", settings: "HttpSettings") -> FastAPI:
    """The HTTP door to the model that ``holder`` holds, now or later."""
    app = FastAPIOffline(
        title="tapster",
        redoc_url=None,
        static_url="/docs/static",
        responses={code: {"model": ErrorResponse} for code in ("4XX", "5XX")},
    )
    app.state.holder = holder
    app.state.settings = settings
    routers = [module.router for module in (models, chat, completions, embeddings, text, status)]
    for router in (*routers, fallback(routers)):
        app.include_router(router)
    _add_error_handlers(app)
    _add_middleware(app, settings)
    complete(app, has_keys=bool(settings.api_keys))
    return app


def _add_middleware(app: FastAPI, settings: "HttpSettings") -> None:
    """The last one added is the outermost: a browser's question about origins carries no key."""
    if settings.api_keys:
        app.add_middleware(BearerAuth, api_keys=settings.api_keys)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after"],
        )
    app.add_middleware(RequestId)


def _add_error_handlers(app: FastAPI) -> None:
    async def on_error(request: Request, error: Exception) -> Response:
        request.app.state.holder.observe(error)
        return error_response(as_api_error(error))

    async def on_crash(request: Request, error: Exception) -> Response:
        # The one handler outside of all middleware.
        response = error_response(as_api_error(error))
        response.headers["x-request-id"] = request.scope["request_id"]
        return response

    async def on_http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if not isinstance(error, ApiError):
            error = http_error(error, request.method, request.url.path)
        return error_response(error)

    async def on_invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return error_response(validation_error(error.errors(), error.body))

    async def on_gone(request: Request, error: Exception) -> Response:
        return Response(status_code=400)

    app.add_exception_handler(TapsterError, on_error)
    app.add_exception_handler(Exception, on_crash)
    app.add_exception_handler(HTTPException, on_http_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(ClientDisconnect, on_gone)
