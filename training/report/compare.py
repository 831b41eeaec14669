"""A stage beside plain fine-tuning (SFT): the same student, rows and steps, with cross-entropy alone.

Both leave their held-out values in ``metrics.jsonl``, plain fine-tuning under the stage's name with ``SUFFIX``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..objectives.schedules import is_constant
from ..recipe.schema import Stage
from .display import shown

SUFFIX = "-sft"
LOSS = "terms/cross_entropy"
_NATS = " (nats a token)"
_SPOKEN = {
    "entropy_hard": f"entropy where the reference was unsure{_NATS}",
    "entropy_easy": f"entropy elsewhere{_NATS}",
}

Records = Sequence[Mapping[str, Any]]


def has_one_loss(stage: Stage) -> bool:
    """Whether the weighted sum of a stage's terms means the same at all steps: no weight follows a schedule, and there
    is no multiplier that adapts."""
    return all(is_constant(one.weight) and one.term != "ads" for one in stage.objective)


def plain_name(stage: str) -> str:
    return stage + SUFFIX


def verdict(ours: Mapping[str, Any], plain: Mapping[str, Any]) -> str:
    """In one sentence, whether the held-out loss is below that of plain fine-tuning; empty where it was not
    measured."""
    mine, other = ours.get(LOSS), plain.get(LOSS)
    if not isinstance(mine, int | float) or not isinstance(other, int | float):
        return ""
    text = f"held-out cross-entropy {mine:.4f} nats a token, of plain fine-tuning {other:.4f}"
    if mine == other:
        return f"{text}: the same"
    return f"{text}: {_percent(mine, other)} {'lower' if mine < other else 'higher, so it does not fall below'}"


def table(stage: str, records: Records) -> str:
    """What was measured on the held-out rows before, after, and after plain fine-tuning; empty where that is not
    there."""
    ours, plain = _held_out(stage, records), _held_out(plain_name(stage), records)
    if not ours or not plain or ours[-1]["step"] != plain[-1]["step"]:
        return ""
    names = [name for name in ours[-1] if _title(name) and name in plain[-1]]
    rows = [_row(name, ours[0], ours[-1], plain[-1]) for name in names]
    head = f"| {stage}, {ours[-1]['step']} steps | before | after | after plain fine-tuning |\n|---|---:|---:|---:|\n"
    said = verdict(ours[-1], plain[-1])
    return head + "\n".join(rows) + (f"\n\nAfter `{stage}`: {said}." if said else "")


def _held_out(stage: str, records: Records) -> list[Mapping[str, Any]]:
    return [record for record in records if record["stage"] == stage and record["kind"] == "eval"]


def _title(name: str) -> str:
    """What a reader calls a value; empty for one that is no measure of the model."""
    if name == LOSS:
        return f"cross-entropy{_NATS}"
    if name.startswith("terms/") and name != "terms/ads":  # the pressure of a multiplier: of no meaning beside another
        return name.removeprefix("terms/")
    return _SPOKEN.get(name.rpartition("/")[2], "")


def _row(name: str, *records: Mapping[str, Any]) -> str:
    values = [record.get(name) for record in records]
    cells = [shown(value) if isinstance(value, int | float) else "–" for value in values]
    return f"| {_title(name)} | {' | '.join(cells)} |"


def _percent(mine: float, other: float) -> str:
    return f"{abs(mine - other) / max(abs(other), 1e-12):.1%}"
