"""The adaptive number of threads against fixed ones: on a quiet machine, and with one core kept busy."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager

from ...runtime.engines.local.threads import default_threads
from .figures import Spread, wall_time_s
from .options import BenchOptions
from .own_server import served_model
from .process import child
from .results import ContentionResult
from .scenarios import LOADS, run_load
from .target import Target

ADAPTIVE = "adaptive"
_SCENARIOS = ("single", "concurrent")
HOPELESS = 3.0
"""A setting this many times slower than the best is measured once: as many threads as cores can be 30 times slower."""

# It also ends when its parent is gone or its time is up, whatever became of the benchmark.
_SPIN = """
import os, sys, time
parent, end = os.getppid(), time.monotonic() + float(sys.argv[1])
while time.monotonic() < end and os.getppid() == parent:
    for _ in range(100_000):
        pass
"""


@contextmanager
def busy_core(at_most_s: float) -> Iterator[subprocess.Popen[bytes]]:
    """Keep one core busy inside the block, for ``at_most_s`` seconds."""
    with child([sys.executable, "-c", _SPIN, str(at_most_s)]) as process:
        yield process


def thread_settings(cores: int) -> dict[str, tuple[str, ...]]:
    """Options of ``tapster serve`` by name: adaptive, and each fixed number that may be best."""
    fixed = sorted({1, max(1, cores - 1), cores})
    return {ADAPTIVE: ()} | {f"--threads {count}": ("--threads", str(count)) for count in fixed}


async def measure_contention(options: BenchOptions, say: Callable[[str], None]) -> list[ContentionResult]:
    """Servers of all settings take turns, so that whatever else the machine does falls on all alike."""
    async with AsyncExitStack() as stack:
        targets: dict[str, Target] = {}
        for name, arguments in thread_settings(default_threads()).items():
            say(f"contended: starting the server ({name})")
            _, targets[name], _ = await stack.enter_async_context(served_model(options, arguments))
        quiet = await _measure_state("quiet", targets, options, say)
        with busy_core(at_most_s=options.timeout_s * options.repeat * len(targets)):
            return quiet + await _measure_state("busy", targets, options, say)


async def _measure_state(
    state: str, targets: dict[str, Target], options: BenchOptions, say: Callable[[str], None]
) -> list[ContentionResult]:
    """Every setting in turn. A first answer, to notice the state it is in, does not count."""
    for name, target in targets.items():
        say(f"contended: {state}, warm-up ({name})")
        await run_load(target, LOADS["single"](f"{options.seed}/{state}/warm-up"))
    walls_s: dict[str, dict[str, list[float]]] = {scenario: {name: [] for name in targets} for scenario in _SCENARIOS}
    for repeat in range(options.repeat):
        for scenario in _SCENARIOS:
            load = LOADS[scenario](f"{options.seed}/{state}/{scenario}/{repeat}")
            for name, target in targets.items():
                if is_hopeless(walls_s[scenario], name):
                    continue
                say(f"contended: {state}, {scenario} {repeat + 1}/{options.repeat} ({name})")
                await target.settle()
                walls_s[scenario][name].append(wall_time_s((await run_load(target, load)).answers))
    return [compare(scenario, state, walls_s[scenario]) for scenario in _SCENARIOS]


def is_hopeless(walls_s: dict[str, list[float]], name: str) -> bool:
    """Whether a fixed setting has shown that it cannot be the best."""
    best = min((min(values) for values in walls_s.values() if values), default=0.0)
    return name != ADAPTIVE and bool(walls_s[name]) and min(walls_s[name]) > HOPELESS * best


def compare(scenario: str, state: str, walls_s: dict[str, list[float]]) -> ContentionResult:
    """The adaptive setting against the fixed one with the smallest median."""
    spreads = {name: Spread.of(values) for name, values in walls_s.items()}
    best_fixed = min((name for name in spreads if name != ADAPTIVE), key=lambda name: spreads[name].median)
    ratio = spreads[ADAPTIVE].median / spreads[best_fixed].median
    return ContentionResult(scenario, state, spreads, best_fixed, ratio)
