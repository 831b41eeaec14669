"""One polite end for long work: Ctrl-C, SIGTERM and a closed terminal all clean up, and none of them twice."""

import signal
from types import FrameType

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def end_once() -> None:
    """From now on the first of these signals raises KeyboardInterrupt; no other interrupts the cleaning up."""
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, and shells that put a command in the background
            signal.signal(number, _end)


def _end(_number: int, _frame: FrameType | None) -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
