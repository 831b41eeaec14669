"""The page's place in the API's application: taken when that is made, filled when the model is ready."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from fastapi import FastAPI
from starlette.responses import HTMLResponse
from starlette.routing import Match, Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from ...runtime.runtime import Runtime
from .build import build_page
from .loading import loading_html, missing_html

log = logging.getLogger(__name__)

PAGE_PATHS = frozenset({"/config", "/theme.css", "/favicon.ico", "/manifest.json", "/login", "/logout"})
PAGE_FOLDERS = ("/assets/", "/static/", "/gradio_api/queue/", "/gradio_api/run/", "/gradio_api/cancel")
"""What the browser asks for. Gradio's other paths (uploads, files, proxies, monitoring …) stay closed."""


class Page:
    """What `/` serves: a note that the page is loading, then the page, or one line that says why there is none."""

    def __init__(self) -> None:
        self.is_open = False
        self._app: ASGIApp = HTMLResponse(loading_html(), headers={"Cache-Control": "no-store"})
        self._closing = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    def takes(self, path: str) -> bool:
        """Whether the page answers for this path."""
        return path == "/" or (self.is_open and (path in PAGE_PATHS or path.startswith(PAGE_FOLDERS)))

    async def open(self, get_runtime: Callable[[], Runtime], *, api_keys: Sequence[str] = ()) -> None:
        """Build the page in a thread, which takes seconds, and serve it on this event loop.

        ``get_runtime`` is asked here and again for every message; then it may raise a TapsterError or an
        HTTPException, which the page shows, to say that the server takes no more. With ``api_keys`` the page
        asks for a login, with one of the keys as the password. Without Gradio, or when it fails, `/` says so,
        and nothing is raised: the API goes on.
        """
        is_up = asyncio.Event()
        self._serving = asyncio.create_task(self._serve(get_runtime, api_keys, is_up))
        await is_up.wait()

    async def close(self) -> None:
        """Stop serving the page, for good."""
        self._closing.set()
        if self._serving is not None:
            await self._serving

    async def _serve(self, get_runtime: Callable[[], Runtime], api_keys: Sequence[str], is_up: asyncio.Event) -> None:
        """The page from its making to its end, in one task: a lifespan is left where it was entered."""
        try:
            app = await asyncio.to_thread(asyncio.run, build_page(get_runtime, api_keys))
            async with app.router.lifespan_context(app):
                self._app, self.is_open = app, True
                is_up.set()
                await self._closing.wait()
        except Exception as error:  # noqa: BLE001 - whatever Gradio raises must not reach the API
            if not self._closing.is_set():
                self._fail(error)
        finally:
            self.is_open = False
            is_up.set()

    def _fail(self, error: Exception) -> None:
        if isinstance(error, ModuleNotFoundError) and error.name == "gradio":
            reason = "There is no chat page: Gradio is not installed (pip install 'gradio>=6,<7')."
        else:
            reason = " ".join(f"There is no chat page: {type(error).__name__}: {error}".split())
        log.warning("%s The API is not affected.", reason)
        self._app = HTMLResponse(missing_html(reason), status_code=503)


class _PageMount(Mount):
    """Takes only the page's own paths: every other one gets the API's answer, a 404 or 405 included."""

    def __init__(self, page: Page) -> None:
        super().__init__("/", page, name="page")
        self._page = page

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        return super().matches(scope) if self._page.takes(path) else (Match.NONE, {})


def attach_page(app: FastAPI) -> Page:
    """Serve the page at `/`, below every route that ``app`` has. Call it after they were added."""
    page = Page()
    app.router.routes.append(_PageMount(page))
    return page
