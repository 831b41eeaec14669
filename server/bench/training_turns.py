"""Contestants that compute in turns, step by step: each in a process of its own, for its peak memory is the process's,
and idle while another one computes, for a machine is not the same from one minute to the next.

A contestant is a ``json_child``. Its first step warms it up; then it answers every question with the seconds of one
more step, and its peak memory so far.
"""

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

from .contest import REST_S, Say
from .json_child import answers, json_child, questions
from .peak import peak_bytes


@dataclass(frozen=True, slots=True)
class Turns:
    """``rise_bytes``: from the peak before the first step to the peak of all."""

    seconds: list[float]
    peak_bytes: int
    rise_bytes: int

    @property
    def median_s(self) -> float:
        return median(self.seconds)


def ratio(ours: Turns, theirs: Turns) -> float:
    """Our seconds over theirs: the median over turns, for the two steps of a turn are neighbours in time."""
    return median(own / other for own, other in zip(ours.seconds, theirs.seconds, strict=True))


def take_turns(module: str, contestants: Mapping[str, Sequence[str]], turns: int, what: str, say: Say) -> list[Turns]:
    """Of each contestant: the words behind ``python -m module``, by the name it is called in messages.

    Raises ModelError or EngineError when one fails.
    """
    return asyncio.run(_take_turns(module, contestants, turns, what, say))


async def _take_turns(
    module: str, contestants: Mapping[str, Sequence[str]], turns: int, what: str, say: Say
) -> list[Turns]:
    async with AsyncExitStack() as stack:
        say(f"{what}: {' and '.join(contestants)} warm up")
        children = {}
        for name, words in contestants.items():
            command = [sys.executable, "-m", module, *words, str(turns)]
            children[name] = await stack.enter_async_context(json_child(command, name))
        befores = [(await child.read())["before_bytes"] for child in children.values()]
        steps: list[list[dict[str, Any]]] = [[] for _ in children]
        for number in range(turns):
            for own, (name, child) in zip(steps, children.items(), strict=True):
                say(f"{what}: {name}, {number + 1}/{turns}")
                await asyncio.sleep(REST_S)
                own.append(await child.ask({}))
        return [_turns(before, own) for before, own in zip(befores, steps, strict=True)]


def _turns(before_bytes: int, steps: Sequence[Mapping[str, Any]]) -> Turns:
    peak = steps[-1]["peak_bytes"]
    return Turns([step["seconds"] for step in steps], peak, peak - before_bytes)


class Pace:
    """In the child: ``step_done`` after each step, the first one included, returns when the next shall begin."""

    def __init__(self, turns: int) -> None:
        self.answer = answers()
        self._steps = self._answered(turns)

    def begin(self) -> None:
        """Everything is loaded."""
        next(self._steps)

    def step_done(self) -> None:
        """Ends the process after the last turn."""
        if next(self._steps, None) is None:
            raise SystemExit(0)

    def _answered(self, turns: int) -> Iterator[bool]:
        before = peak_bytes()
        yield True
        self.answer({"before_bytes": before})
        for _, _ in zip(range(turns), questions(), strict=False):
            began_s = perf_counter()
            yield True
            self.answer({"seconds": perf_counter() - began_s, "peak_bytes": peak_bytes()})
