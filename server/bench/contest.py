"""An engine of ours against the program whose format or library it uses: in turns, on one machine.

Both are processes without HTTP, loaded and warm before the first turn and idle during the other's; every turn has new
prompts, the same for both. A third serves our engine, to tell what the server and its client cost.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Protocol

from ...runtime.errors import EngineError
from .conversion import Row
from .events import Answer
from .exchange import Address
from .figures import wall_time_s
from .json_child import JsonChild, json_child
from .options import BenchOptions
from .own_server import served_model
from .target import Target
from .token_prompts import token_prompts

PROMPT_TOKENS, NEW_TOKENS = 31, 96
BAR = 0.95
REST_S = 0.3
"""Between turns: a thread pool that spins for its next task has gone to sleep by then."""

Prompts = list[list[int]]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Turn:
    """Seconds of one load: to the end of all answers, and to the first token of any where that can be seen."""

    wall_s: float
    first_s: float | None
    tokens: int

    @property
    def rate(self) -> float:
        """New tokens a second, the prompt's time inside."""
        return self.tokens / self.wall_s

    @property
    def decode_rate(self) -> float | None:
        """New tokens a second after the first."""
        return None if self.first_s is None else (self.tokens - 1) / (self.wall_s - self.first_s)


class Side(Protocol):
    """Whoever answers a load."""

    async def turn(self, prompts: Prompts, new_tokens: int) -> Turn: ...


@dataclass(frozen=True, slots=True)
class ServedSide:
    """A server, over HTTP."""

    target: Target

    async def turn(self, prompts: Prompts, new_tokens: int) -> Turn:
        answers = await self.target.run([self.target.completion(ids, new_tokens) for ids in prompts])
        return turn_of(answers)


@dataclass(frozen=True, slots=True)
class ChildSide:
    """A process that answers loads; see ``opponents``."""

    process: JsonChild

    async def turn(self, prompts: Prompts, new_tokens: int) -> Turn:
        answer = await self.process.ask({"prompts": prompts, "new_tokens": new_tokens})
        return Turn(answer["wall_s"], answer["first_s"], answer["new_tokens"])


def turn_of(answers: Sequence[Answer]) -> Turn:
    """Answers that were sent together."""
    firsts = [answer.times_s[0] for answer in answers if answer.times_s]
    began_s = min(answer.sent_s for answer in answers)
    first_s = min(firsts) - began_s if firsts else None
    return Turn(wall_time_s(answers), first_s, sum(answer.new_tokens for answer in answers))


@dataclass(frozen=True, slots=True)
class Contest:
    """``engine`` serves the artifact in ``folder``, ``opponent`` (see ``opponents``) runs the same; ``streams`` are how
    many prompts a load has, each with a bar."""

    engine: str
    opponent: str
    folder: Path
    streams: tuple[int, ...]
    new_tokens: int = NEW_TOKENS


@dataclass(slots=True)
class Turns:
    """All turns of one side with one number of streams."""

    name: str
    turns: list[Turn] = field(default_factory=list)

    def rate(self) -> float:
        return median(turn.rate for turn in self.turns)


async def hold(contest: Contest, *, repeat: int, threads: int, timeout_s: float, seed: int, say: Say) -> list[Row]:
    """The contest's lines of the report. TapsterError when a side fails."""
    rows: list[Row] = []
    say(f"{contest.engine}: loading")
    async with AsyncExitStack() as stack:
        address, ours = await stack.enter_async_context(_served(contest, threads, timeout_s))
        theirs = await stack.enter_async_context(_process(contest.opponent, contest, threads))
        inside = await stack.enter_async_context(_process(f"tapster {contest.engine}", contest, threads))
        sides: dict[str, Side] = {"tapster": inside, contest.opponent: theirs, "tapster serve": ours}
        for streams in contest.streams:
            found = {name: Turns(name) for name in sides}
            for number in range(repeat + 1):
                say(f"{contest.engine}: {streams} streams, {number}/{repeat}")
                prompts = await token_prompts(address, streams, PROMPT_TOKENS, f"{seed}/{streams}/{number}")
                for name, side in sides.items():
                    turn = await _checked_turn(name, side, prompts, contest.new_tokens)
                    if number > 0:  # the first is the warm-up
                        found[name].turns.append(turn)
            rows += contest_rows(f"{contest.engine}, {_streams(streams)}", [*found.values()])
    return rows


def contest_rows(what: str, sides: Sequence[Turns], bar: float = BAR) -> list[Row]:
    """Rates of all sides, and by turns each other side's as a multiple of the second's, the first with its bar."""
    ours, theirs, *others = sides
    rows = [Row(f"{what}: {side.name}", side.rate(), "tok/s") for side in sides]
    rows.append(Row(f"{what}: {ours.name} / {theirs.name}", _ratio(ours, theirs), "x", bar, is_at_least=True))
    rows += [Row(f"{what}: {other.name} / {theirs.name}", _ratio(other, theirs), "x") for other in others]
    pairs = [(our.decode_rate, their.decode_rate) for our, their in zip(ours.turns, theirs.turns, strict=True)]
    decode = [our / their for our, their in pairs if our is not None and their is not None]
    if decode:
        rows.append(Row(f"{what}: the same after the first token", median(decode), "x"))
    return rows


def _ratio(side: Turns, yardstick: Turns) -> float:
    return median(its.rate / the.rate for its, the in zip(side.turns, yardstick.turns, strict=True))


async def _checked_turn(name: str, side: Side, prompts: Prompts, new_tokens: int) -> Turn:
    turn = await side.turn(prompts, new_tokens)
    if turn.tokens != len(prompts) * new_tokens:
        raise EngineError(f"{name} made {turn.tokens} tokens instead of {len(prompts) * new_tokens}")
    await asyncio.sleep(REST_S)
    return turn


@asynccontextmanager
async def _served(contest: Contest, threads: int, timeout_s: float) -> AsyncIterator[tuple[Address, ServedSide]]:
    options = BenchOptions(what=str(contest.folder), timeout_s=timeout_s)
    extra = ("--engine", contest.engine, "--threads", str(threads))
    async with served_model(options, extra) as (server, target, _):
        yield server.address, ServedSide(target)


@asynccontextmanager
async def _process(name: str, contest: Contest, threads: int) -> AsyncIterator[ChildSide]:
    module = f"{__package__}.opponents"
    async with json_child([sys.executable, "-m", module, name, str(contest.folder), str(threads)], name) as process:
        await process.read()
        yield ChildSide(process)


def _streams(count: int) -> str:
    return "1 stream" if count == 1 else f"{count} streams"
