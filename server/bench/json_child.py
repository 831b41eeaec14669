"""A child process that answers questions: one JSON object a line, in on its standard input and out on its output."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import IO, Any

from ...runtime.errors import EngineError, ModelError
from .process import child, last_words


@dataclass(frozen=True, slots=True)
class JsonChild:
    """The process; ``what`` names it in errors, ``errors`` is where it writes what is no answer."""

    what: str
    process: subprocess.Popen[bytes]
    errors: IO[bytes]

    async def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Its answer. Raises ModelError or EngineError when it failed."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(question).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, and its last words say why
        return await self.read()

    async def read(self) -> dict[str, Any]:
        """Its next line. Raises ModelError or EngineError when it failed."""
        assert self.process.stdout is not None
        line = await asyncio.to_thread(self.process.stdout.readline)
        if not line:
            status = await asyncio.to_thread(self.process.wait)
            raise EngineError(f"{self.what} ended with status {status}: {last_words(self.errors)}")
        answer = json.loads(line)
        if "error" in answer:
            raise ModelError(answer["error"])
        return answer


@asynccontextmanager
async def json_child(command: Sequence[str], what: str) -> AsyncIterator[JsonChild]:
    """Start it. It does not outlive the block, and ends when its standard input does."""
    with (
        tempfile.TemporaryFile() as errors,
        child(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        yield JsonChild(what, process, errors)


def questions() -> Iterable[dict[str, Any]]:
    """In the child: what it is asked, until there is nothing more."""
    return map(json.loads, sys.stdin)


def answers() -> Callable[[dict[str, Any]], None]:
    """In the child: how to answer. From then on all else that is printed goes to standard error."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(line: dict[str, Any]) -> None:
        out.write(json.dumps(line) + "\n")
        out.flush()

    return answer
