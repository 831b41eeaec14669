"""Bars and the two forms of the report."""

import io
import json

import pytest
from rich.console import Console

from tapster.server.bench.bars import judge
from tapster.server.bench.figures import Spread
from tapster.server.bench.options import SCENARIOS
from tapster.server.bench.report import print_report, to_json
from tapster.server.bench.results import (
    BenchResult,
    CeilingResult,
    ContentionResult,
    MemoryResult,
    ScenarioResult,
    StartUp,
)


def scenario(name: str, figures: dict[str, float], ratio: float | None = None, host_ms: float = 0.1) -> ScenarioResult:
    spread = {figure: Spread(value, value, value + 1) for figure, value in figures.items()}
    one = Spread(1.0, 1.0, 1.0)
    ceiling = None
    if ratio is not None:
        ceiling = CeilingResult(one, one, Spread(ratio, ratio, ratio), Spread(host_ms, host_ms, host_ms))
    return ScenarioResult(name, SCENARIOS[name], 1, 31, 96, [], spread, ceiling)


@pytest.fixture
def result() -> BenchResult:
    result = BenchResult(settings={"repeat": 3})
    result.scenarios = [
        scenario("single", {"wall_s": 1.25}, ratio=1.10),
        scenario("concurrent", {}, ratio=1.16, host_ms=0.4),
        scenario("mixed", {"largest_gap_over_median": 3.5}),
        scenario("second-turn", {}),
    ]
    result.start_up = StartUp(models_s=1.6, ready_s=1.7, first_token_s=1.9)
    result.memory = MemoryResult(400_000_000, 450_000_000, 100_000_000, 190_000_000, 8192)
    result.contention = [ContentionResult("single", "busy", {"adaptive": Spread(2.0, 2.0, 2.0)}, "--threads 1", 1.19)]
    result.bars = judge(result)
    return result


def test_bars(result: BenchResult) -> None:
    assert {bar.name: bar.is_met for bar in result.bars} == {
        "single: wall / raw replay": True,
        "concurrent: wall / raw replay": False,
        "concurrent: host work a token": False,
        "mixed: largest gap over median": True,
        "second-turn: ttft share": None,
        "start-up: first answer on /v1": False,
        "memory beyond the model and 8,192 cells of KV cache": True,
        "single, busy: adaptive / --threads 1": True,
    }


def test_the_report_shows_figures_bars_and_what_they_exclude(result: BenchResult) -> None:
    result.notes.append("single: the server ended answers early: 2 new tokens instead of 96")
    console = Console(file=io.StringIO(), width=150)
    print_report(result, console)
    text = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]  a StringIO
    for part in (
        "1.25 (1.25–2.25)",
        "missed",
        "not measured",
        "160.00 MB",
        "connecting is not",
        "note: single",
    ):
        assert part in text


def test_json_carries_everything(result: BenchResult) -> None:
    document = json.loads(to_json(result))
    assert document["bars"][0] == {
        "name": "single: wall / raw replay",
        "unit": "×",
        "figure": 1.1,
        "bar": 1.1,
        "is_met": True,
    }
    assert document["scenarios"][0]["figures"]["wall_s"] == {"median": 1.25, "min": 1.25, "max": 2.25}
    assert set(document["excludes"]) >= {"ttft_ms", "gap_ms", "wall_s"}
