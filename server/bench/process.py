"""Child processes that never outlive the benchmark, and what they said last."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from subprocess import DEVNULL, STDOUT, Popen, TimeoutExpired
from typing import IO

_STOP_TIMEOUT_S = 10.0


@contextmanager
def child(
    command: Sequence[str],
    stdin: int = DEVNULL,
    stdout: int | IO[bytes] = DEVNULL,
    stderr: int | IO[bytes] = STDOUT,
    env: Mapping[str, str] | None = None,
) -> Iterator[Popen[bytes]]:
    """A process that is stopped at the end of the block.

    It has a session of its own: a Ctrl-C in the terminal reaches us alone, and we stop it in good order.
    """
    process = Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, env=env, start_new_session=True)
    try:
        yield process
    finally:
        stop(process)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def stop(process: Popen[bytes], timeout_s: float = _STOP_TIMEOUT_S) -> None:
    """Ask the process to end, and end it when it does not."""
    try:
        process.terminate()
        process.wait(timeout_s)
    except TimeoutExpired:
        pass
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def last_words(output: IO[bytes]) -> str:
    """The last line in a file that a process wrote to."""
    output.seek(0)
    lines = output.read().decode("utf-8", "replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
