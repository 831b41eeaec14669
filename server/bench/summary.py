"""All runs of one scenario, and their replays, as one result."""

from collections.abc import Iterator, Sequence

from .ceiling import Replay
from .figures import Spread, run_figures, spreads, wall_time_s
from .options import SCENARIOS
from .results import CeilingResult, ScenarioResult
from .scenarios import Run


def summarise(name: str, runs: Sequence[Run], replays: Sequence[Replay]) -> ScenarioResult:
    """The figures of a scenario. ``replays`` has one for each run, or none."""
    figures = [run_figures(run.answers) | run.extra for run in runs]
    has_ceiling = bool(replays) and is_same_work(runs, replays)
    return ScenarioResult(
        name=name,
        about=SCENARIOS[name],
        streams=len(runs[-1].answers),
        prompt_tokens=runs[-1].prompt_tokens,
        new_tokens=runs[-1].new_tokens,
        runs=figures,
        figures=spreads(figures),
        ceiling=_ceiling_result(runs, replays) if has_ceiling else None,
    )


def _ceiling_result(runs: Sequence[Run], replays: Sequence[Replay]) -> CeilingResult:
    pairs = [(wall_time_s(run.answers), replay.wall_s) for run, replay in zip(runs, replays, strict=True)]
    tokens = runs[0].asked_tokens
    return CeilingResult(
        wall_s=Spread.of([replay.wall_s for replay in replays]),
        prefill_s=Spread.of([replay.prefill_s for replay in replays]),
        wall_ratio=Spread.of([server_s / raw_s for server_s, raw_s in pairs]),
        host_ms_per_token=Spread.of([1000 * (server_s - raw_s) / tokens for server_s, raw_s in pairs]),
    )


def is_same_work(runs: Sequence[Run], replays: Sequence[Replay]) -> bool:
    """Whether the server took in and made as many tokens as the replay, as far as it says."""
    return all(
        run.new_tokens == run.asked_tokens and run.prompt_tokens in (None, sum(replay.prompt_tokens))
        for run, replay in zip(runs, replays, strict=True)
    )


def doubts(name: str, runs: Sequence[Run], replays: Sequence[Replay]) -> Iterator[str]:
    """What makes the figures less than they seem, one line each."""
    if not all(answer.is_counted for run in runs for answer in run.answers):
        yield f"{name}: the server reports no usage; events with text are counted as tokens"
    asked, fewest = runs[0].asked_tokens, min(run.new_tokens for run in runs)
    if fewest < asked:
        yield f"{name}: the server ended answers early: {fewest} new tokens instead of {asked}"
    if replays and not is_same_work(runs, replays):
        yield (
            f"{name}: not compared with the raw replay, which had {sum(replays[-1].prompt_tokens)} prompt and "
            f"{asked} new tokens; the server had {runs[-1].prompt_tokens} and {runs[-1].new_tokens}"
        )
