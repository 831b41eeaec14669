"""The picture of a run: for each stage the loss, held-out values as points, and beside it the terms it is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .metrics import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Records = Sequence[Mapping[str, Any]]

_COLORS = ("#2457a6", "#b5532a", "#4d7a3a", "#7a4d8c", "#8c7a2b", "#3a8c8c")
_STYLES: dict[str, dict[str, Any]] = {
    "train": {"linewidth": 1.4},
    "eval": {"marker": "o", "linestyle": ":", "markersize": 4},
}
_LOG_RANGE = 30
"""The largest over the smallest value from which on an axis is logarithmic."""


def draw_losses(metrics: Path, picture: Path) -> bool:
    """Draw a ``metrics.jsonl`` as PNG. False where there is nothing to draw, or matplotlib is not installed."""
    stages = _by_stage(read_metrics(metrics))
    if not stages:
        return False
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    columns = 2 if any(len(_terms(records)) > 1 for records in stages.values()) else 1
    figure = Figure(figsize=(5.5 * columns, 3.4 * len(stages)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(stages), columns, squeeze=False)
    for row, (stage, records) in zip(axes, stages.items(), strict=True):
        _draw(row[0], records, ["loss"], f"{stage}: loss")
        if columns == 2:
            _draw(row[1], records, _terms(records), f"{stage}: terms, unweighted")
    figure.savefig(picture)
    return True


def _by_stage(records: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Stages with at least one loss, in the order in which they ran."""
    stages: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        stages.setdefault(record["stage"], []).append(record)
    return {stage: found for stage, found in stages.items() if any(_has(record, "loss") for record in found)}


def _terms(records: Records) -> list[str]:
    names = (name for record in records for name in record if name.startswith("terms/") and _has(record, name))
    return list(dict.fromkeys(names))


def _draw(axes: Axes, records: Records, names: Sequence[str], title: str) -> None:
    """Lines of what was trained on, points of what was held out; of one colour for each name."""
    from matplotlib.ticker import MaxNLocator

    values: list[float] = []
    for name, color in zip(names, _COLORS * (1 + len(names) // len(_COLORS)), strict=False):
        label = name.removeprefix("terms/")
        for kind, style in _STYLES.items():
            points = [
                (record["step"], record[name]) for record in records if record["kind"] == kind and _has(record, name)
            ]
            if points:
                axes.plot(
                    [step for step, _ in points],
                    [value for _, value in points],
                    color=color,
                    label=_label(label, kind),
                    **style,
                )
                values += [value for _, value in points]
    if values and min(values) > 0 and max(values) / min(values) > _LOG_RANGE:
        axes.set_yscale("log")
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("optimiser step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True, alpha=0.3)
    if values:
        axes.legend(fontsize=8)


def _label(name: str, kind: str) -> str:
    return name if kind == "train" else f"{name}, held out"


def _has(record: Mapping[str, Any], name: str) -> bool:
    return isinstance(record.get(name), int | float)
