"""Ctrl-C waits for the end of a block, and is not lost."""

import signal
import subprocess
import sys
import threading

import pytest

from tapster.runtime.uninterrupted import uninterrupted


def test_an_interrupt_waits_for_the_end() -> None:
    done = []

    def work() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append("the rest of the block")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done


def test_the_handler_is_put_back_also_after_an_error() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ValueError, match="inside"), uninterrupted():
        raise ValueError("inside")
    assert signal.getsignal(signal.SIGINT) is before


def test_where_interrupts_are_ignored_they_stay_so() -> None:
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from tapster.runtime.uninterrupted import uninterrupted\n"
        "with uninterrupted(): signal.raise_signal(signal.SIGINT)\n"
        "print('on')"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "on\n"


def test_other_threads_pass_through() -> None:
    done = []

    def work() -> None:
        with uninterrupted():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done
