"""A vLLM through ``tapster serve vllm://…`` against itself: what our server in front of it costs."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

from ...runtime.errors import EngineError, TargetError
from .contest import BAR, NEW_TOKENS, PROMPT_TOKENS, REST_S, Prompts, Turns, contest_rows, turn_of
from .conversion import Row
from .engine_options import EngineBenchOptions
from .events import Answer
from .exchange import Address
from .options import BenchOptions
from .own_server import served_model
from .target import Target, open_target
from .token_prompts import token_prompts

STREAMS = 8
TTFT_BAR_MS = 20.0
_KEY = "VLLM_API_KEY"
_CONTEXT = 2048

Say = Callable[[str], None]


async def measure_vllm(checkpoint: Path, options: EngineBenchOptions, say: Say) -> list[Row]:
    """The lines of the report. TapsterError when there is no vLLM or it fails."""
    say("vllm: waiting for it")
    async with (
        _running(checkpoint, options) as (url, key),
        served_model(BenchOptions(what=vllm_url(url), timeout_s=options.timeout_s), env={**os.environ, _KEY: key}) as (
            server,
            through,
            _,
        ),
    ):
        direct = await open_target(Address.parse(url), BenchOptions(api_key=key, timeout_s=options.timeout_s))
        await direct.warm_up()
        sides = {"through tapster": through, "direct": direct}
        turns = {name: Turns(name) for name in sides}
        ttfts_ms: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(options.repeat + 1):
            say(f"vllm: {STREAMS} streams, {number}/{options.repeat}")
            for name, target in sides.items():
                # each side has prompts of its own, because vLLM would know them by their second time
                seed = f"{options.seed}/vllm/{number}/{name}"
                answers = await _answers(target, await token_prompts(server.address, STREAMS, PROMPT_TOKENS, seed))
                if number > 0:
                    turns[name].turns.append(turn_of(answers))
                    ttfts_ms[name].append(_ttft_ms(answers))
    return rows_of([*turns.values()], ttfts_ms)


def rows_of(turns: list[Turns], ttfts_ms: dict[str, list[float]]) -> list[Row]:
    """Rates and their ratio, and by how much the first token comes later."""
    through, direct = ttfts_ms.values()
    later_ms = median(one - other for one, other in zip(through, direct, strict=True))
    what = f"vllm, {STREAMS} streams"
    rows = [row for row in contest_rows(what, turns, BAR) if "after the first" not in row.work]
    rows += [Row(f"{what}: median TTFT {name}", median(values), "ms") for name, values in ttfts_ms.items()]
    return [*rows, Row(f"{what}: TTFT through tapster less direct", later_ms, "ms", TTFT_BAR_MS)]


async def _answers(target: Target, prompts: Prompts) -> list[Answer]:
    answers = await target.run([target.completion(ids, NEW_TOKENS) for ids in prompts])
    made = sum(answer.new_tokens for answer in answers)
    if made != STREAMS * NEW_TOKENS:
        raise EngineError(f"{target.address.url} made {made} tokens instead of {STREAMS * NEW_TOKENS}")
    await asyncio.sleep(REST_S)
    return answers


def _ttft_ms(answers: list[Answer]) -> float:
    found = [answer.ttft_s for answer in answers if answer.ttft_s is not None]
    if not found:
        raise TargetError("no answer had any text")
    return 1000 * median(found)


@asynccontextmanager
async def _running(checkpoint: Path, options: EngineBenchOptions) -> AsyncIterator[tuple[str, str]]:
    """The URL of a vLLM, and its key: the one that was named, or one for this run."""
    if options.vllm_url:
        yield http_url(options.vllm_url), os.environ.get(_KEY, "")
        return
    from ...runtime.engines.vllm.config import VllmConfig
    from ...runtime.engines.vllm.supervisor import Supervisor

    config = VllmConfig(vllm_python=options.vllm_python, context=_CONTEXT, vllm_start_timeout_s=options.timeout_s)
    supervisor = Supervisor(checkpoint, config, on_exit=lambda _why: None)
    try:
        client = await asyncio.to_thread(supervisor.start)
        yield str(client.addresses[0]), client.api_key or ""
    finally:
        await asyncio.to_thread(supervisor.stop)


def http_url(url: str) -> str:
    """``vllm://`` is HTTP and ``vllms://`` HTTPS."""
    return f"http{url.removeprefix('vllm')}" if url.startswith("vllm") else url


def vllm_url(url: str) -> str:
    """The other way."""
    return f"vllm{url.removeprefix('http')}"
