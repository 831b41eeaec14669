"""Ctrl-C, SIGTERM and a terminal that closes while a stage trains: save after the running step; the second time, at
once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

NUMBERS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def stopping(stop: Callable[[], None]) -> Iterator[None]:
    """While inside, the first signal calls ``stop`` and the second one does what it did before. Ignored ones stay so:
    ``nohup`` does that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: now for number in NUMBERS if (now := signal.getsignal(number)) is not signal.SIG_IGN}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def first(_number: int, _frame: FrameType | None) -> None:
        restore()
        stop()

    for number in before:
        signal.signal(number, first)
    try:
        yield
    finally:
        restore()
