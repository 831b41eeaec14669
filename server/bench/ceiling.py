"""The raw replay in a process of its own, so that it and the server never share an interpreter.

The process reads one load a line as JSON on stdin and answers with one line; it ends when stdin does.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from ...runtime.errors import EngineError, ModelError, TapsterError
from .process import child, last_words
from .replay import MICRO_BATCHES, RawReplay
from .scenarios import Load


@dataclass(frozen=True, slots=True)
class Replay:
    """One replayed load. ``wall_s`` includes ``prefill_s``; ``prompt_tokens`` has every prompt's length."""

    wall_s: float
    prefill_s: float
    prompt_tokens: list[int]


@dataclass(slots=True)
class Ceiling:
    """The replay's process, loaded and idle; ``micro_batch`` is the one that was faster here."""

    process: subprocess.Popen[bytes]
    errors: IO[bytes]
    threads: int
    micro_batch: int = 0

    async def measure(self, load: Load) -> Replay:
        """Replay a load once."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asdict(load)).encode() + b"\n")
        self.process.stdin.flush()
        return Replay(**await self.read())

    async def read(self) -> dict[str, Any]:
        """The process's next line. Raises ModelError or EngineError when it failed."""
        assert self.process.stdout is not None
        line = await asyncio.to_thread(self.process.stdout.readline)
        if not line:
            status = self.process.wait()
            raise EngineError(f"the raw replay ended with status {status}: {last_words(self.errors)}")
        answer = json.loads(line)
        if "error" in answer:
            raise ModelError(answer["error"])
        return answer


@asynccontextmanager
async def ceiling_process(
    path: Path, threads: int, micro_batches: Sequence[int] = MICRO_BATCHES
) -> AsyncIterator[Ceiling]:
    """The raw replay of the model at ``path``. Its process does not outlive the block."""
    command = [sys.executable, "-m", __name__, str(path), str(threads), *map(str, micro_batches)]
    with (
        tempfile.TemporaryFile() as errors,
        child(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        ceiling = Ceiling(process, errors, threads)
        ceiling.micro_batch = (await ceiling.read())["micro_batch"]
        yield ceiling


def serve_replays(path: Path, threads: int, micro_batches: Sequence[int]) -> None:
    """What the process does: load, say so, then answer every line."""
    try:
        replay = RawReplay(path, threads, micro_batches)
    except TapsterError as error:
        _write({"error": str(error)})
        return
    _write({"micro_batch": replay.micro_batch})
    for line in sys.stdin:
        load = json.loads(line)
        prompts = [replay.tokenize(text) for text in load["prompts"]]
        timing = replay.run(prompts, load["new_tokens"], load["has_prefix"])
        lengths = [len(prompt) for prompt in prompts]
        _write({"wall_s": timing.wall_s, "prefill_s": timing.prefill_s, "prompt_tokens": lengths})
    replay.close()


def _write(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _, model, threads, *micro_batches = sys.argv
    serve_replays(Path(model), int(threads), [int(size) for size in micro_batches])
