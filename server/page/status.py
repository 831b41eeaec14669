"""The line under the chat: how fast the answer comes, how full the context is, or what went wrong."""

import time
from dataclasses import dataclass
from html import escape

from starlette.exceptions import HTTPException

from ...runtime.errors import TapsterError
from ...runtime.text.types import Timing

READY = '<div class="tapster-status"></div>'


@dataclass(frozen=True, slots=True)
class Progress:
    """Where an answer stands, in tokens."""

    prompt_tokens: int
    num_tokens: int
    context_length: int
    timing: Timing

    @property
    def used(self) -> int:
        """How much of the context is taken."""
        return self.prompt_tokens + self.num_tokens

    def speed(self, now_s: float) -> float | None:
        """Tokens a second, the first one and the prompt's time left out; None before the second token."""
        first_s = self.timing.first_token_s
        num_after_first = self.num_tokens - 1
        if first_s is None or num_after_first < 1:
            return None
        elapsed_s = (self.timing.finished_s or now_s) - first_s
        return num_after_first / elapsed_s if elapsed_s > 0 else None


def running(progress: Progress) -> str:
    """The line while the answer comes."""
    now_s = time.monotonic()
    if progress.timing.first_token_s is None:
        waited_s = now_s - progress.timing.started_s
        return _line([f"reading the prompt · {waited_s:.1f} s"], progress, is_busy=True)
    return _line(_figures(progress, now_s), progress, is_busy=True)


def finished(progress: Progress, note: str = "") -> str:
    """The line when the answer is over; ``note`` says why it is shorter than the model wanted."""
    figures = _figures(progress, time.monotonic())
    return _line([*figures, note] if note else figures, progress)


def failed(error: TapsterError | HTTPException) -> str:
    """The error, as one line."""
    message = error.detail if isinstance(error, HTTPException) else str(error)
    return f'<div class="tapster-status tapster-error" role="alert">{escape(message)}</div>'


def _figures(progress: Progress, now_s: float) -> list[str]:
    figures = [f"{progress.num_tokens:,} tokens"]
    speed = progress.speed(now_s)
    if speed is not None:
        figures.append(f"{speed:.1f} tokens/s")
    if progress.timing.ttft_s is not None:
        figures.append(f"first token {progress.timing.ttft_s:.2f} s")
    return figures


def _line(figures: list[str], progress: Progress, *, is_busy: bool = False) -> str:
    used, total = progress.used, progress.context_length
    percent = min(100, 100 * used / total)
    return (
        f'<div class="tapster-status" aria-busy="{str(is_busy).lower()}"><span>{escape(" · ".join(figures))}</span>'
        f"<span>context {used:,} / {total:,} "
        f'<span class="tapster-bar"><i style="width: {percent:.1f}%"></i></span></span></div>'
    )
