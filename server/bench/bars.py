"""The bars that tapster sets itself on the demo model with two threads, and what a run says to them."""

from collections.abc import Iterator

from .results import BarResult, BenchResult, ScenarioResult

WALL_RATIO = {"single": 1.10, "concurrent": 1.15, "shared": 1.20}
FIGURE = {"mixed": ("largest_gap_over_median", 4.0), "second-turn": ("ttft_share", 0.15)}
HOST_MS_PER_TOKEN = {"concurrent": 0.3}
START_UP_S = 1.5
MEMORY_MB = 200.0
CONTENDED_RATIO = 1.2


def judge(result: BenchResult) -> list[BarResult]:
    """Every bar that the run has a figure for."""
    bars = [bar for scenario in result.scenarios for bar in _scenario_bars(scenario)]
    if result.start_up is not None:
        bars.append(BarResult("start-up: first answer on /v1", "s", result.start_up.models_s, START_UP_S))
    if (memory := result.memory) is not None and memory.cache_bytes is not None:
        beyond = memory.ended_bytes - memory.model_bytes - memory.cache_bytes
        name = f"memory beyond the model and {memory.cache_cells:,} cells of KV cache"
        bars.append(BarResult(name, "MB", beyond / 1e6, MEMORY_MB))
    for row in result.contention:
        name = f"{row.scenario}, {row.state}: adaptive / {row.best_fixed}"
        bars.append(BarResult(name, "×", row.ratio, CONTENDED_RATIO))
    return bars


def _scenario_bars(scenario: ScenarioResult) -> Iterator[BarResult]:
    name = scenario.name
    if name in FIGURE:
        figure, bar = FIGURE[name]
        spread = scenario.figures.get(figure)
        yield BarResult(f"{name}: {figure.replace('_', ' ')}", "×", spread.median if spread else None, bar)
    if scenario.ceiling is None:
        return
    if name in WALL_RATIO:
        yield BarResult(f"{name}: wall / raw replay", "×", scenario.ceiling.wall_ratio.median, WALL_RATIO[name])
    if name in HOST_MS_PER_TOKEN:
        host_ms = scenario.ceiling.host_ms_per_token.median
        yield BarResult(f"{name}: host work a token", "ms", host_ms, HOST_MS_PER_TOKEN[name])
