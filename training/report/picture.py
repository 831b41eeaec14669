"""The picture of a run: for each stage the loss, held-out values as points, and beside it the terms it is made of.

Where a term watches entropies, they have a part of their own. Of plain fine-tuning beside a stage, held-out values are
shown in grey.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .compare import LOSS, SUFFIX, plain_name
from .metrics import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    Records = Sequence[Mapping[str, Any]]

_COLORS = ("#2457a6", "#b5532a", "#4d7a3a", "#7a4d8c", "#8c7a2b", "#3a8c8c")
_STYLES: dict[str, dict[str, Any]] = {
    "train": {"linewidth": 1.4},
    "eval": {"marker": "o", "linestyle": ":", "markersize": 4},
}
_PLAIN = {"marker": "s", "linestyle": "none", "markersize": 5, "color": "#8a8a8a", "fillstyle": "none"}
_ENTROPIES = {"entropy_hard": "entropy where unsure", "entropy_easy": "entropy elsewhere"}
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
    shown = {stage: records for stage, records in stages.items() if not stage.endswith(SUFFIX)}
    columns = [_loss]
    if any(len(_terms(records)) > 1 for records in shown.values()):
        columns.append(_each_term)
    if any(_entropies(records) for records in shown.values()):
        columns.append(_each_entropy)
    figure = Figure(figsize=(6.5 * len(columns), 3.4 * len(shown)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(shown), len(columns), squeeze=False)
    for row, (stage, records) in zip(axes, shown.items(), strict=True):
        for place, draw in zip(row, columns, strict=True):
            draw(place, stage, records, stages.get(plain_name(stage), []))
    figure.savefig(picture)
    return True


def _loss(axes: Axes, stage: str, records: Records, plain: Records) -> None:
    _draw(axes, records, {"loss": "loss"}, f"{stage}: loss")


def _each_term(axes: Axes, stage: str, records: Records, plain: Records) -> None:
    names = {name: name.removeprefix("terms/") for name in _terms(records)}
    _draw(axes, records, names, f"{stage}: terms, unweighted", plain, [LOSS])


def _each_entropy(axes: Axes, stage: str, records: Records, plain: Records) -> None:
    names = _entropies(records)
    _draw(axes, records, names, f"{stage}: entropy, nats a token", plain, list(names))


def _by_stage(records: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Stages with at least one loss, in the order in which they ran."""
    stages: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        stages.setdefault(record["stage"], []).append(record)
    return {stage: found for stage, found in stages.items() if any(_has(record, "loss") for record in found)}


def _terms(records: Records) -> list[str]:
    names = (name for record in records for name in record if name.startswith("terms/") and _has(record, name))
    return list(dict.fromkeys(names))


def _entropies(records: Records) -> dict[str, str]:
    """What a reader calls them, by name."""
    found = dict.fromkeys(name for record in records for name in record if name.startswith("state/"))
    return {name: _ENTROPIES[end] for name in found if (end := name.rpartition("/")[2]) in _ENTROPIES}


def _draw(
    axes: Axes,
    records: Records,
    names: Mapping[str, str],
    title: str,
    plain: Records = (),
    plain_names: Sequence[str] = (),
) -> None:
    """Lines of what was trained on, points of what was held out; of one colour for each name."""
    from matplotlib.ticker import MaxNLocator

    values: list[float] = []
    for (name, label), color in zip(names.items(), _COLORS * (1 + len(names) // len(_COLORS)), strict=False):
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
    values += _draw_plain(axes, plain, plain_names)
    if values and min(values) > 0 and max(values) / min(values) > _LOG_RANGE:
        axes.set_yscale("log")
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("optimiser step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=True, alpha=0.3)
    if values:
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))  # beside, where it hides nothing


def _draw_plain(axes: Axes, records: Records, names: Sequence[str]) -> list[float]:
    held = [record for record in records if record["kind"] == "eval" and record["step"] > 0]
    points = [(record["step"], record[name]) for name in names for record in held if _has(record, name)]
    if points:
        axes.plot(*zip(*points, strict=True), label="after plain fine-tuning", **_PLAIN)
    return [value for _, value in points]


def _label(name: str, kind: str) -> str:
    return name if kind == "train" else f"{name}, held out"


def _has(record: Mapping[str, Any], name: str) -> bool:
    return isinstance(record.get(name), int | float)
