"""Optional API keys."""

from hmac import compare_digest

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from .errors import ApiError, error_response

GUARDED = ("/v1", "/tokenize", "/detokenize", "/apply-template")


class BearerAuth:
    """Middleware: the endpoints of the API need one of the keys as a bearer token."""

    def __init__(self, app: ASGIApp, api_keys: tuple[str, ...]) -> None:
        self._app = app
        self._keys = [key.encode() for key in api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _is_guarded(scope["path"]) and not self._is_allowed(Headers(scope=scope)):
            error = ApiError(
                401,
                "this server needs an API key: send the header Authorization: Bearer KEY",
                code="invalid_api_key",
                headers={"www-authenticate": "Bearer"},
            )
            await error_response(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_allowed(self, headers: Headers) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = token.strip().encode()
        # Every key is compared, in constant time, so that the time taken tells nothing.
        matches = [compare_digest(given, key) for key in self._keys]
        return scheme.lower() == "bearer" and any(matches)


def _is_guarded(path: str) -> bool:
    return any(path == guarded or path.startswith(f"{guarded}/") for guarded in GUARDED)
