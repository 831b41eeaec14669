"""What a pipeline says: its plan, and in the end what was done, what came out and how to serve it."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...training.report.compare import has_one_loss, verdict
from ...training.report.display import duration
from .proofs import Proved
from .step import Verdict

if TYPE_CHECKING:
    from ...converters.targets import Target
    from ...training.recipe.schema import Recipe
    from .run import Done

_WIDTH = max(len(status) for status in ("will run", "up to date", "not needed"))


def plan_lines(plan: Mapping[str, Verdict]) -> list[str]:
    """A line for each step: whether it will run, what it makes, and why."""
    return [f"  {name:<8} {verdict.status:<{_WIDTH}}  {_about(verdict)}" for name, verdict in plan.items()]


def _about(verdict: Verdict) -> str:
    return ": ".join(part for part in (verdict.about, "; ".join(verdict.why)) if part)


def step_lines(done: "Sequence[Done]") -> list[str]:
    """How long each took."""
    rows = [(one.name, "-" if one.seconds is None else duration(one.seconds), one.verdict) for one in done]
    return [f"  {name:<8} {took:>8}  {_outcome(verdict)}" for name, took, verdict in rows]


def _outcome(verdict: Verdict) -> str:
    return verdict.about if verdict.runs else f"{verdict.status}: {verdict.about or '; '.join(verdict.why)}"


def artifact_lines(made: "Sequence[tuple[Target, Proved]]") -> list[str]:
    """What each is and what it lost."""
    if not made:
        return []
    from rich.filesize import decimal

    rows = [("artifact", "size", "mean KLD", "top-1", "")]
    rows += [
        (str(target), decimal(one.num_bytes), _nats(one.mean_kld), _percent(one.top1), str(one.path))
        for target, one in made
    ]
    return [f"  {line}".rstrip() for line in _aligned(rows)]


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The first column and the last one to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:-1], widths[1:]), row[-1]]) for row in rows]


def _nats(value: float | None) -> str:
    from ...converters.proof.figures import shown

    return "-" if value is None else f"{shown(value)} nats"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def stage_lines(stages: Sequence[Mapping[str, Any]], recipe: "Recipe") -> list[str]:
    """The held-out loss of each stage, before and after, or its terms where their sum does not mean the same at both;
    and beside plain fine-tuning where that was measured."""
    one_loss = {stage.name: has_one_loss(stage) for stage in recipe.stages}
    lines: list[str] = []
    for one in stages:
        before, after = one.get("before", {}), one.get("after", {})
        terms = [name for name in after if name.startswith("terms/")]
        names = ["loss"] if one_loss[one["stage"]] else terms
        moved = [_moved(name, before[name], after[name]) for name in names if name in before and name in after]
        if moved:
            lines.append(f"  {one['stage']}: held-out {', '.join(moved)}")
        if said := verdict(one.get("after", {}), one.get("plain", {})):
            lines.append(f"  {one['stage']}: {said}")
    return lines


def _moved(name: str, before: float, after: float) -> str:
    return f"{name.removeprefix('terms/')} {before:.4g} -> {after:.4g}"


def to_json(
    out: Path,
    done: "Sequence[Done]",
    stages: Sequence[Mapping[str, Any]],
    made: "Sequence[tuple[Target, Proved]]",
    serve: Sequence[str],
) -> str:
    """The same, for programs."""
    steps = [
        {
            "name": one.name,
            "status": "ran" if one.verdict.runs else one.verdict.status,
            "why": one.verdict.why,
            "seconds": _rounded(one.seconds),
        }
        for one in done
    ]
    artifacts = [
        {
            "target": str(target),
            "path": str(one.path),
            "bytes": one.num_bytes,
            "mean_kld": one.mean_kld,
            "top1": one.top1,
        }
        for target, one in made
    ]
    values = {
        "out": str(out),
        "model": str(out / "model"),
        "steps": steps,
        "stages": [{key: value for key, value in one.items() if key != "sources"} for one in stages],
        "artifacts": artifacts,
        "serve": list(serve),
    }
    return json.dumps(values, indent=2, ensure_ascii=False)


def plan_json(out: Path, plan: Mapping[str, Verdict], estimate: Mapping[str, Any] | None) -> str:
    steps = [{"name": name, "status": one.status, "why": one.why, "about": one.about} for name, one in plan.items()]
    return json.dumps({"out": str(out), "steps": steps, "estimate": estimate}, indent=2, ensure_ascii=False)


def command_line(arguments: Sequence[str]) -> str:
    """As a shell takes it."""
    return shlex.join(arguments)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
