"""The raw replay in a process of its own, so that it and the server never share an interpreter.

The process reads one load a line as JSON and answers with one line (see ``json_child``).
"""

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ...runtime.errors import TapsterError
from .json_child import JsonChild, answers, json_child, questions
from .replay import MICRO_BATCHES, RawReplay
from .scenarios import Load


@dataclass(frozen=True, slots=True)
class Replay:
    """One replayed load. ``wall_s`` includes ``prefill_s``; ``prompt_tokens`` has every prompt's length."""

    wall_s: float
    prefill_s: float
    prompt_tokens: list[int]


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The replay's process, loaded and idle; ``micro_batch`` is the one that was faster here."""

    process: JsonChild
    threads: int
    micro_batch: int

    async def measure(self, load: Load) -> Replay:
        """Replay a load once."""
        return Replay(**await self.process.ask(asdict(load)))


@asynccontextmanager
async def ceiling_process(
    path: Path, threads: int, micro_batches: Sequence[int] = MICRO_BATCHES
) -> AsyncIterator[Ceiling]:
    """The raw replay of the model at ``path``. Its process does not outlive the block."""
    command = [sys.executable, "-m", __name__, str(path), str(threads), *map(str, micro_batches)]
    async with json_child(command, "the raw replay") as process:
        yield Ceiling(process, threads, (await process.read())["micro_batch"])


def serve_replays(path: Path, threads: int, micro_batches: Sequence[int]) -> None:
    """What the process does: load, say so, then answer every line."""
    answer = answers()
    try:
        replay = RawReplay(path, threads, micro_batches)
    except TapsterError as error:
        answer({"error": str(error)})
        return
    answer({"micro_batch": replay.micro_batch})
    for load in questions():
        prompts = [replay.tokenize(text) for text in load["prompts"]]
        timing = replay.run(prompts, load["new_tokens"], load["has_prefix"])
        lengths = [len(prompt) for prompt in prompts]
        answer({"wall_s": timing.wall_s, "prefill_s": timing.prefill_s, "prompt_tokens": lengths})
    replay.close()


if __name__ == "__main__":
    _, model, threads, *micro_batches = sys.argv
    serve_replays(Path(model), int(threads), [int(size) for size in micro_batches])
