"""What signals do while a stage trains."""

import os
import signal

import pytest

from tapster.training.loop.signals import stopping


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_one_stops_and_the_second_one_ends(number: signal.Signals) -> None:
    signal.signal(number, signal.default_int_handler)
    stopped: list[bool] = []
    with stopping(lambda: stopped.append(True)):
        os.kill(os.getpid(), number)
        assert stopped == [True]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


def test_what_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stopping(lambda: pytest.fail("stopped")):
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
