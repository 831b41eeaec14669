"""The whole comparison: rounds in which every contender has its turn, then what each lost, then the advice."""

import asyncio
import os
import platform
from collections.abc import Callable
from typing import Any

from ...runtime.errors import TapsterError
from .advice import advise
from .contender import labels
from .divergence import MeasuredAgainst, ReferenceFailed, measure_kld
from .options import CompareOptions
from .prepare import Prepared, choose_source, prepare
from .results import CompareResult, Row
from .rounds import run_round

Say = Callable[[str], None]
SETTLE_S = 0.2
"""Between one server's end and the next one's start, for the system to take back its memory."""


async def compare(options: CompareOptions, result: CompareResult, say: Say) -> None:
    """Fill ``result``, as far as it comes: whatever ends it early, what was measured until then is there."""
    say("looking at the models")
    found = [*(await asyncio.to_thread(prepare, options.contenders)).values()]
    result.rows[:] = [row for row, _ in found]
    ready = [(row, prepared) for row, prepared in found if prepared]
    source = _source(options, ready, result) if options.has_kld else None
    try:
        await _measure_speeds(ready, options, say)
        if source:
            await _measure_klds(ready, source, options, result, say)
    finally:
        result.advice = advise([row for row in result.rows if not row.error], options.max_kld, result.source)


def settings(options: CompareOptions) -> dict[str, Any]:
    """What was asked for, and on what machine."""
    from ...converters.publish.speed import this_machine

    return {
        "repeat": options.repeat,
        "prompt_tokens": options.prompt_tokens,
        "tokens": options.new_tokens,
        "kld_tokens": options.kld_tokens if options.has_kld else None,
        "max_kld": options.max_kld if options.has_kld else None,
        "threads": options.threads,
        "context": options.context,
        "machine": str(this_machine()),
        "system": platform.system(),
        "logical_cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
    }


async def _measure_speeds(ready: list[tuple[Row, Prepared]], options: CompareOptions, say: Say) -> None:
    """Every contender once, then every contender again: whatever else the machine does falls on all alike."""
    for repeat in range(options.repeat):
        for row, prepared in ready:
            if row.error:
                continue
            say(f"round {repeat + 1}/{options.repeat}: {row.label} on {row.engine}")
            try:
                row.add(await run_round(prepared, options, f"compare/{repeat}"))
            except TapsterError as error:
                row.error = str(error)
            await asyncio.sleep(SETTLE_S)


def _source(options: CompareOptions, ready: list[tuple[Row, Prepared]], result: CompareResult) -> Prepared | None:
    """What the others are compared with. TapsterError when the one that was named is not there."""
    if options.source is None:
        source, result.source_note = choose_source(ready)
    else:
        source, result.source_note = Prepared(options.source), None
    for row, prepared in ready:
        if source and (prepared.path, prepared.engine) == (source.path, source.engine):
            row.is_source, result.source = True, row.label
    if source and result.source is None:
        [result.source] = labels([source.contender])
    return source


async def _measure_klds(
    ready: list[tuple[Row, Prepared]], source: Prepared, options: CompareOptions, result: CompareResult, say: Say
) -> None:
    against = MeasuredAgainst(source, options.kld_tokens, options.threads)
    for row, prepared in ready:
        if row.is_source or row.error:
            continue
        if prepared.path is None:
            row.kld_note = "its logits stay on the other machine"
            continue
        say(f"divergence: {row.label} from {result.source}")
        try:
            row.divergence = await measure_kld(against, prepared)
        except ReferenceFailed as error:
            result.source_note = f"no divergence: {error}"
            return
        except TapsterError as error:
            row.kld_note = str(error)
