"""``tapster serve`` as a process of its own, from its first line to its end."""

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pytest

START_S = 600
"""vLLM takes minutes."""
END_S = 60


@contextmanager
def serving(model: str, *options: str) -> Iterator[str]:
    """The URL of a server that answers, on a free port. It is gone afterwards."""
    command = [sys.executable, "-m", "tapster.server.cli", "serve", model, "--port", "0", "--no-page", *options]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=offline)
    assert process.stderr
    lines = _lines(process.stderr)
    try:
        yield _wait_for_url(lines)
    finally:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            pytest.fail(f"the server did not end within {END_S} s of SIGTERM", pytrace=False)
        finally:
            process.stderr.close()


def _lines(log: IO[str]) -> "queue.Queue[str | None]":
    """The log's lines as they come, None at its end. Somebody has to read them, or the process would block."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in log:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines


def _wait_for_url(lines: "queue.Queue[str | None]") -> str:
    seen = []
    while (line := lines.get(timeout=START_S)) is not None:
        seen.append(line)
        if " answers on " in line:
            return line.split(" answers on ")[1].strip().removesuffix("/v1")
    return pytest.fail(f"the server ended before it answered:\n{''.join(seen)[-2000:]}", pytrace=False)
