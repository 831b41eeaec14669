"""A teacher's text cache against the bare load of ``tapster bench``, on one server: what keeping answers costs.

Both send the same chats, as many at once, with the same limit; whoever has an answer sends its next question. The first
turn is not counted, so every prompt is known to the server in all that are; every other turn goes the other way round,
for nobody shall always come last. The cache asks for the log-probabilities that an entropy needs, which cost the server
time: so the bare load asks for them as well, and without them.
"""

import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from ...runtime.errors import EngineError
from .conversion import Row
from .events import Answer, read_answer
from .options import BenchOptions
from .own_server import served_model
from .prompts import prompts
from .target import Target

QUESTIONS, STREAMS, NEW_TOKENS, PROMPT_TOKENS, TOP_K = 24, 8, 64, 24, 20
BAR = 0.9

Say = Callable[[str], None]
Side = Callable[[], Awaitable[float]]


def measure_teacher(
    model: str = "demo", *, repeat: int, say: Say, timeout_s: float = 600.0, seed: int = 1
) -> list[Row]:
    """The lines of the report: medians of ``repeat`` turns, and of their ratios. TapsterError when a side fails."""
    return asyncio.run(_measure(BenchOptions(what=model, timeout_s=timeout_s), repeat, seed, say))


async def _measure(options: BenchOptions, repeat: int, seed: int, say: Say) -> list[Row]:
    chosen = prompts(QUESTIONS, PROMPT_TOKENS, str(seed))
    questions = [f"Write a long story about this: {one}" for one in chosen]
    extra = ("--max-waiting", str(4 * STREAMS))
    async with served_model(options, extra, with_chat=True) as (server, target, _):
        url = server.address.url
        sides: dict[str, Side] = {
            "tapster bench": lambda: _bare(target, questions, {}),
            "the cache": lambda: asyncio.to_thread(_cached, url, questions, 0),
            "tapster bench, with log-probabilities": lambda: _bare(target, questions, _LOGPROBS),
            "the cache, with log-probabilities": lambda: asyncio.to_thread(_cached, url, questions, TOP_K),
        }
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(repeat + 1):
            for name in list(sides)[:: 1 if number % 2 else -1]:
                say(f"teacher: {name}, {number}/{repeat}")
                rate = await sides[name]()
                if number > 0:
                    rates[name].append(rate)
    return _rows(rates)


def _rows(rates: dict[str, list[float]]) -> list[Row]:
    what = f"{QUESTIONS} answers of {NEW_TOKENS} tokens, {STREAMS} at once"
    bare, cached, bare_with, cached_with = rates
    rows = [Row(f"{what}: {name}", median(turns), "tok/s") for name, turns in rates.items()]
    for one, other, bar in ((cached, bare, None), (cached_with, bare_with, BAR), (cached_with, bare, BAR)):
        ratio = median(ours / theirs for ours, theirs in zip(rates[one], rates[other], strict=True))
        rows.append(Row(f"{what}: {one} / {other}", ratio, "x", bar, is_at_least=True))
    return rows


_LOGPROBS: dict[str, Any] = {"logprobs": True, "top_logprobs": TOP_K}


async def _bare(target: Target, questions: Sequence[str], more: dict[str, Any]) -> float:
    """New tokens a second of the load that ``tapster bench`` makes, a stream's next question behind its last answer."""
    target.fields = {"stream_options": {"include_usage": True}, **more}
    waiting = iter([target.chat([{"role": "user", "content": question}], NEW_TOKENS) for question in questions])
    answers: list[Answer] = []

    async def stream() -> None:
        for request in waiting:
            async with target.open(1) as [exchange]:
                exchange.send(request)
                await exchange.until_end()
            answers.append(read_answer(exchange))

    started_s = perf_counter()
    await asyncio.gather(*(stream() for _ in range(STREAMS)))
    return _rate([answer.new_tokens for answer in answers], perf_counter() - started_s)


def _cached(url: str, questions: Sequence[str], top_k: int) -> float:
    """New tokens a second of a text cache, from nothing to all answers on the disk."""
    from ...training.recipe.schema import Teacher
    from ...training.teacher.endpoint import Patience
    from ...training.teacher.text_cache import TextCache

    table = Teacher(kind="text-cache", endpoint=url, concurrency=STREAMS, max_tokens=NEW_TOKENS)
    with tempfile.TemporaryDirectory(prefix="tapster-bench-") as folder:
        asking = table.model_copy(update={"top_k": top_k})
        cache = TextCache(asking, Path(folder), say=lambda _line: None, patience=Patience(attempts=1))
        started_s = perf_counter()
        cache.prepare([{"role": "user", "content": question}] for question in questions)
        wall_s = perf_counter() - started_s
        lines = [line for path in Path(folder).glob("*.jsonl") for line in path.read_text("utf-8").splitlines()]
    return _rate([json.loads(line)["usage"]["completion_tokens"] for line in lines], wall_s)


def _rate(new_tokens: Sequence[int], wall_s: float) -> float:
    if len(new_tokens) != QUESTIONS:
        raise EngineError(f"{len(new_tokens)} of {QUESTIONS} questions were answered")
    if min(new_tokens) < NEW_TOKENS // 2:
        raise EngineError(f"an answer has {min(new_tokens)} tokens, far from {NEW_TOKENS}: take a chattier model")
    return sum(new_tokens) / wall_s
