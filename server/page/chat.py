"""What happens when something is pressed: an answer begins, stops, or is asked for again.

The handlers run on the event loop of the server, which is the one that the engine is bound to. They yield the
new values of (chat, message box, status line), and Gradio sends what changed to the browser. When the browser
goes away, Gradio closes the handler at its next update, and that cancels the answer.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import gradio as gr
from starlette.exceptions import HTTPException

from ...runtime.errors import TapsterError
from ...runtime.runtime import Runtime
from . import status
from .answer import Answer
from .coalesce import coalesce
from .history import ChatValue, cut_before, model_messages, user_message
from .settings import Settings

UPDATE_INTERVAL_S = 0.1
"""Time between two updates of the browser, each of which costs about 5 ms of this process."""

Update = tuple[Any, Any, Any]


class Chat:
    """The handlers of one page; ``_answers`` has the running answer of each browser tab."""

    def __init__(self, get_runtime: Callable[[], Runtime]) -> None:
        self._get_runtime = get_runtime
        self._answers: dict[str | None, Answer] = {}

    async def send(self, text: str, chat: ChatValue, request: gr.Request, *settings: str) -> AsyncGenerator[Update]:
        """Answer a new message."""
        async for update in self._answer(chat, text, request, settings):
            yield update

    async def retry(
        self, event: gr.RetryData, chat: ChatValue, request: gr.Request, *settings: str
    ) -> AsyncGenerator[Update]:
        """Answer the same message again."""
        before, text = cut_before(chat, _index(event))
        async for update in self._answer(before, text, request, settings):
            yield update

    async def edit(
        self, event: gr.EditData, chat: ChatValue, request: gr.Request, *settings: str
    ) -> AsyncGenerator[Update]:
        """Answer a message that was changed; what came after it goes."""
        before, _ = cut_before(chat, _index(event))
        async for update in self._answer(before, event.value, request, settings):
            yield update

    async def undo(self, event: gr.UndoData, chat: ChatValue) -> Update:
        """Take the last message back into the box."""
        before, text = cut_before(chat, _index(event))
        return before, box(text), status.READY

    async def stop(self, request: gr.Request) -> None:
        """End the running answer of this tab; what has come stays."""
        if answer := self._answers.get(request.session_hash):
            answer.stop()

    async def clear(self, request: gr.Request) -> tuple[Any, str]:
        """Forget the chat, the running answer too."""
        if answer := self._answers.get(request.session_hash):
            answer.stop(discard=True)
        return box(), status.READY

    async def _answer(
        self, before: ChatValue, text: str, request: gr.Request, settings: Sequence[str]
    ) -> AsyncGenerator[Update]:
        """The updates until the answer has ended. Without an answer the message goes back into its box."""
        session = request.session_hash
        if not text.strip() or session in self._answers:
            yield gr.skip(), gr.skip(), gr.skip()
            return
        chat = [*before, user_message(text)]
        try:
            answer = self._start(chat, Settings(*settings))
        except (TapsterError, HTTPException) as error:
            yield before, box(text), status.failed(error)
            return
        self._answers[session] = answer
        try:
            yield [*chat, *answer.messages()], box("", is_busy=True), status.running(answer.progress())
            async for update in self._follow(answer, chat):
                yield update
            line = status.finished(answer.progress(), answer.note())
        except TapsterError as error:
            line = status.failed(error)
        finally:
            answer.stream.cancel()
            del self._answers[session]
        if answer.is_discarded:
            yield [], box(), status.READY
        elif answer.is_empty():
            yield before, box(text), line
        else:
            yield [*chat, *answer.messages(is_done=True)], box(), line

    def _start(self, chat: ChatValue, settings: Settings) -> Answer:
        runtime = self._get_runtime()
        params = settings.params(runtime.default_params)
        messages = model_messages(chat, settings.system)
        (stream,) = runtime.chat(messages, params, stop=settings.stops())
        return Answer(stream, runtime.engine.capabilities.context_length)

    async def _follow(self, answer: Answer, chat: ChatValue) -> AsyncGenerator[Update]:
        async for deltas in coalesce(answer.stream, UPDATE_INTERVAL_S):
            answer.add(deltas)
            yield [*chat, *answer.messages()], gr.skip(), status.running(answer.progress())


def box(text: str | None = None, is_busy: bool = False) -> Any:
    """The message box: with a new text, or None to keep what stands there; with a stop button while busy."""
    changes: dict[str, Any] = {"submit_btn": not is_busy, "stop_btn": is_busy}
    return gr.update(**changes) if text is None else gr.update(value=text, **changes)


def _index(event: gr.RetryData | gr.EditData | gr.UndoData) -> int:
    return event.index if isinstance(event.index, int) else event.index[0]
