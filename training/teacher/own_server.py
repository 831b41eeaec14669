"""A ``tapster serve`` as a child process, for a teacher that lies on this machine."""

import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

from ...runtime.errors import TrainingError

_ANSWERS_ON = " answers on "
_END_S = 15.0


@contextmanager
def serve_local(model: str, *, options: Sequence[str] = (), start_s: float = 600.0) -> Iterator[str]:
    """The address (``http://127.0.0.1:PORT/v1``) of a server of ``model``, which is gone after the block.

    Its process has a session of its own: Ctrl-C in the terminal reaches us, and we end it. TrainingError with its last
    words when it does not come up.
    """
    serve = [sys.executable, "-m", "tapster.server.cli", "serve", model, "--port", "0", "--no-page", "--log-level"]
    process = subprocess.Popen(
        [*serve, "warning", *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stderr
    lines: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process.stderr, lines), daemon=True)
    reader.start()
    try:
        yield _address(model, lines, start_s)
    finally:
        _end(process)
        reader.join()
        process.stderr.close()


def _read(log: IO[str], lines: "queue.Queue[str | None]") -> None:
    """Somebody has to read what the server says, or it would block."""
    for line in log:
        if lines.qsize() < 1000:
            lines.put(line.strip())
    lines.put(None)


def _address(model: str, lines: "queue.Queue[str | None]", start_s: float) -> str:
    said: deque[str] = deque(["it said nothing"], maxlen=1)
    while True:
        try:
            line = lines.get(timeout=start_s)
        except queue.Empty:
            raise TrainingError(f"the server of the teacher {model} did not answer within {start_s:g} s") from None
        if line is None:
            raise TrainingError(f"the server of the teacher {model} ended before it answered: {said[0]}")
        if _ANSWERS_ON in line:
            return line.split(_ANSWERS_ON)[1].split()[0]
        if line:
            said.append(line)


def _end(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.terminate()  # a second signal ends it at once
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
