"""What has come of an answer."""

from collections.abc import Sequence

from ...runtime.text.stream import TextStream
from ...runtime.text.types import Delta
from .history import ChatValue, answer_messages
from .status import Progress


class Answer:
    """An answer that is on its way: its stream, and what came out of it."""

    def __init__(self, stream: TextStream, context_length: int) -> None:
        self.stream = stream
        self.is_discarded = False
        self._is_stopped = False
        self._context_length = context_length
        self._content = ""
        self._reasoning = ""
        self._num_deltas = 0

    def add(self, deltas: Sequence[Delta]) -> None:
        """Append what came."""
        self._content += "".join(delta.content for delta in deltas)
        self._reasoning += "".join(delta.reasoning for delta in deltas)
        self._num_deltas += len(deltas)

    def stop(self, discard: bool = False) -> None:
        """End it before the model does. What has come stays, unless it is discarded with the chat."""
        self._is_stopped = True
        self.is_discarded = discard
        self.stream.cancel()

    def is_empty(self) -> bool:
        """Whether no word has come."""
        return not self._content and not self._reasoning

    def messages(self, is_done: bool = False) -> ChatValue:
        """The answer as Gradio shows it."""
        return answer_messages(self._content, self._reasoning, is_done)

    def progress(self) -> Progress:
        """How far it is. Its tokens are counted at the end; until then by deltas, nearly one a token."""
        timing = self.stream.timing
        num_tokens = self._num_deltas if timing.finished_s is None else self.stream.usage.completion_tokens
        return Progress(self.stream.usage.prompt_tokens, num_tokens, self._context_length, timing)

    def note(self) -> str:
        """Why it is shorter than the model wanted, or empty when it is not."""
        if self._is_stopped:
            return "stopped"
        if self.stream.finish_reason == "length":
            progress = self.progress()
            return "the context is full" if progress.used >= progress.context_length else "max tokens reached"
        return "the answer is empty" if self.is_empty() else ""
