"""The whole run: a server, the replay beside it, every scenario as often as asked, and the verdict."""

import os
import platform
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from ...runtime.engines.local.threads import default_threads
from .bars import judge
from .ceiling import Ceiling, Replay, ceiling_process
from .contention import measure_contention
from .exchange import Address
from .memory import measure_memory
from .options import BenchOptions
from .own_server import served_model
from .results import BenchResult, ScenarioResult
from .scenarios import FLOWS, LOADS, Run, run_load
from .summary import doubts, summarise
from .target import Target, open_target

Say = Callable[[str], None]


async def benchmark(options: BenchOptions, model_path: Path | None, say: Say) -> BenchResult:
    """Everything that was asked for. Raises TapsterError.

    ``model_path`` is the file of a server started here, and of the replay. ``say`` is told what comes next.
    """
    result = BenchResult(settings=_settings(options))
    async with AsyncExitStack() as stack:
        say("starting the server" if not options.is_url else "connecting")
        target = await stack.enter_async_context(_target(options, model_path, result, say))
        ceiling = None
        if options.wants_ceiling:
            assert model_path is not None
            say("loading the raw replay")
            threads = options.replay_threads or default_threads()
            ceiling = await stack.enter_async_context(ceiling_process(model_path, threads))
            result.settings |= {"replay_threads": ceiling.threads, "replay_micro_batch": ceiling.micro_batch}
        for name in options.scenarios:
            result.scenarios.append(await _measure(name, target, ceiling, options, result.notes, say))
    if options.is_contended:
        result.contention = await measure_contention(options, say)
    result.bars = judge(result)
    return result


@asynccontextmanager
async def _target(
    options: BenchOptions, model_path: Path | None, result: BenchResult, say: Say
) -> AsyncIterator[Target]:
    """A warm target. Of a server started here: also its start-up, and at the end its memory."""
    with_chat = "second-turn" in options.scenarios
    if options.is_url:
        target = await open_target(Address.parse(options.what), options)
        await target.warm_up(with_chat)
        yield target
        return
    async with served_model(options, with_chat=with_chat) as (server, target, result.start_up):
        started_bytes = server.memory_bytes()
        yield target
        assert model_path is not None
        result.memory = measure_memory(server, model_path, started_bytes, is_default=not options.serve_args)


async def _measure(
    name: str, target: Target, ceiling: Ceiling | None, options: BenchOptions, notes: list[str], say: Say
) -> ScenarioResult:
    """Runs of one scenario, each followed by its replay while the server has nothing to do."""
    runs: list[Run] = []
    replays: list[Replay] = []
    for repeat in range(options.repeat):
        seed = f"{options.seed}/{name}/{repeat}"
        say(f"{name} {repeat + 1}/{options.repeat}")
        load = LOADS[name](seed) if name in LOADS else None
        await target.settle()
        runs.append(await (run_load(target, load) if load else FLOWS[name](target, seed)))
        if ceiling is not None and load is not None:
            say(f"{name} {repeat + 1}/{options.repeat}, raw replay")
            replays.append(await ceiling.measure(load))
    notes += doubts(name, runs, replays)
    return summarise(name, runs, replays)


def _settings(options: BenchOptions) -> dict[str, object]:
    return {
        "target": options.what,
        "repeat": options.repeat,
        "seed": options.seed,
        "is_chat": options.is_chat,
        "serve_args": list(options.serve_args),
        "machine": platform.machine(),
        "system": platform.system(),
        "logical_cores": os.cpu_count(),
        "usable_cores": default_threads(),
        "load_average": os.getloadavg()[0],
    }
