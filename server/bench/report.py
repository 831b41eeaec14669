"""The result as tables for people and as JSON for programs."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from .figures import Spread
from .results import BarResult, BenchResult, ScenarioResult

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# figure, label, decimals
_ROWS = (
    ("wall_s", "wall, s", 2),
    ("throughput_tps", "throughput, tok/s", 1),
    ("stream_tps", "per stream, tok/s", 1),
    ("ttft_p50_ms", "TTFT p50, ms", 0),
    ("ttft_max_ms", "TTFT max, ms", 0),
    ("gap_p50_ms", "gap p50, ms", 1),
    ("gap_p99_ms", "gap p99, ms", 1),
    ("gap_max_ms", "gap max, ms", 1),
    ("largest_gap_over_median", "largest gap / median, ×", 1),
    ("long_prompt_ttft_ms", "long prompt's TTFT, ms", 0),
    ("cold_ttft_ms", "cold TTFT, ms", 0),
    ("ttft_share", "TTFT / cold TTFT, ×", 3),
)
_CEILING_ROWS = (
    ("wall_s", "raw replay, s", 2),
    ("wall_ratio", "wall / raw replay, ×", 2),
    ("host_ms_per_token", "(wall - raw) a token, ms", 2),
)


def to_json(result: BenchResult) -> str:
    """The whole result; every spread as median, min and max."""
    document = asdict(result)
    document["bars"] = [asdict(bar) | {"is_met": bar.is_met} for bar in result.bars]
    return json.dumps(document, indent=2)


def print_report(result: BenchResult, console: "Console") -> None:
    """Tables and the lines that say how to read them."""
    if result.scenarios:
        console.print(_scenario_table(result.scenarios))
    if result.contention:
        console.print(_contention_table(result))
    if result.bars:
        console.print(_bar_table(result.bars))
    for line in _lines(result):
        console.print(line, style="dim", highlight=False, soft_wrap=True, markup=False)


def _scenario_table(scenarios: list[ScenarioResult]) -> "Table":
    table = _table("scenario", *(scenario.name for scenario in scenarios))
    table.add_row("streams", *(str(scenario.streams) for scenario in scenarios))
    table.add_row("prompt tokens", *(_count(scenario.prompt_tokens) for scenario in scenarios))
    table.add_row("new tokens", *(_count(scenario.new_tokens) for scenario in scenarios), end_section=True)
    for name, label, decimals in _ROWS:
        _add_row(table, label, [scenario.figures.get(name) for scenario in scenarios], decimals)
    for name, label, decimals in _CEILING_ROWS:
        spreads = [getattr(scenario.ceiling, name) if scenario.ceiling else None for scenario in scenarios]
        _add_row(table, label, spreads, decimals)
    return table


def _contention_table(result: BenchResult) -> "Table":
    settings = list(result.contention[0].wall_s)
    table = _table("wall, s", *settings, "adaptive / best fixed, ×")
    for row in result.contention:
        cells = [_spread(row.wall_s[name], 2) for name in settings]
        table.add_row(f"{row.scenario}, {row.state}", *cells, f"{row.ratio:.2f}")
    return table


def _bar_table(bars: list[BarResult]) -> "Table":
    table = _table("bar", "figure", "at most", "")
    for bar in bars:
        figure = "–" if bar.figure is None else f"{bar.figure:.2f} {bar.unit}"
        table.add_row(bar.name, figure, f"{bar.bar:.2f} {bar.unit}", _verdict(bar))
    return table


def _lines(result: BenchResult) -> Iterator[str]:
    yield f"Medians (smallest–largest) of {result.settings['repeat']}. Not in any figure: {result.excludes['all']}."
    yield from (f"{name}: {text}" for name, text in result.excludes.items() if name != "all")
    yield from (f"{scenario.name}: {scenario.about}" for scenario in result.scenarios)
    if (start := result.start_up) is not None:
        yield (
            f"start-up, from the start of the process: /v1/models after {start.models_s:.2f} s, ready after "
            f"{start.ready_s:.2f} s, first token of a first answer after {start.first_token_s:.2f} s"
        )
    if (memory := result.memory) is not None:
        cache = "" if memory.cache_bytes is None else f", KV cache {memory.cache_bytes / 1e6:.0f} MB"
        yield (
            f"resident memory: {memory.started_bytes / 1e6:.0f} MB after the first answer, "
            f"{memory.ended_bytes / 1e6:.0f} MB at the end "
            f"(model file {memory.model_bytes / 1e6:.0f} MB{cache})"
        )
    yield from (f"note: {note}" for note in result.notes)
    yield "settings: " + ", ".join(f"{name} {value}" for name, value in result.settings.items())


def _table(first: str, *others: str) -> "Table":
    from rich.table import Table

    table = Table(header_style="bold")
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _add_row(table: "Table", label: str, spreads: list[Spread | None], decimals: int) -> None:
    """A row, unless no scenario has the figure."""
    if any(spread is not None for spread in spreads):
        table.add_row(label, *("" if spread is None else _spread(spread, decimals) for spread in spreads))


def _spread(spread: Spread, decimals: int) -> str:
    if spread.min == spread.max:
        return f"{spread.median:,.{decimals}f}"
    return f"{spread.median:,.{decimals}f} ({spread.min:,.{decimals}f}–{spread.max:,.{decimals}f})"


def _count(count: int | None) -> str:
    return "–" if count is None else f"{count:,}"


def _verdict(bar: BarResult) -> str:
    if bar.is_met is None:
        return "not measured"
    return "[green]met[/green]" if bar.is_met else "[bold red]missed[/bold red]"
