"""Gradio as an ASGI application of its own, that never reaches out and never lets others in."""

import hmac
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...runtime.runtime import Runtime

if TYPE_CHECKING:
    import gradio as gr

CONTENT_SECURITY_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
"""The browser fetches nothing from elsewhere, whatever a model writes: an image in an answer would tell its
host what was said. Gradio itself needs inline scripts, and ``eval`` for its HTML parts."""

IDLE_POLL_S = 0.02
"""How often Gradio's queue looks for work. Its own millisecond takes 4 % of a core that decoding needs."""


NUM_TABS_KEPT = 100
"""Of how many tabs Gradio keeps a copy of the chat. None is needed: the browser sends its chat with every message."""


async def build_page(get_runtime: Callable[[], Runtime], api_keys: Sequence[str] = ()) -> FastAPI:
    """The page, to be served once its lifespan runs.

    Blocks for seconds at the first call, in which it imports Gradio: run it in a thread. It is a coroutine because
    Gradio opens an event loop for every lock that it makes where none runs, and never closes it. With ``api_keys``
    the page asks for a login: any user name, and one of the keys as the password.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(sys.maxsize)  # no table of all events after every answer
    import gradio as gr

    from .layout import build_blocks, css, theme

    blocks = build_blocks(get_runtime)
    _tame(blocks)
    shell = FastAPI(openapi_url=None)
    # Gradio leaves cross-origin requests to an application that has this; without arguments it allows none.
    shell.add_middleware(CORSMiddleware)
    shell.add_middleware(_OnlyFromHere)
    return gr.mount_gradio_app(
        shell,
        blocks,
        "/",
        auth=_login(api_keys) if api_keys else None,
        auth_message="Any user name; the password is an API key of this server.",
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        max_file_size="1kb",
        theme=theme(),
        css=css(),
    )


def _tame(blocks: "gr.Blocks") -> None:
    """Settings that Gradio has no parameters for."""
    blocks._queue.sleep_when_free = IDLE_POLL_S
    blocks._queue.progress_update_sleep_when_free = 1.0  # no handler reports progress
    blocks.state_session_capacity = NUM_TABS_KEPT


def _login(api_keys: Sequence[str]) -> Callable[[str, str], bool]:
    def is_known(_user: str, password: str) -> bool:
        # Every key is compared, in constant time, so that the time taken tells nothing.
        return sum(hmac.compare_digest(password.encode(), key.encode()) for key in api_keys) > 0

    return is_known


class _OnlyFromHere:
    """Adds the content security policy to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
                ]
            await send(message)

        await self._app(scope, receive, send_with_policy)
