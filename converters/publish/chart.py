"""The chart beside published artifacts: what each lost against its size."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ...runtime.errors import ConfigError, ConversionError
from ..proof.figures import Figures
from .entries import Entry, family

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

_COLORS = {"K": "#2457a6", "IQ": "#b5532a", "other": "#4d7a3a"}
_LEGEND = {"K": "K types", "IQ": "IQ types", "other": "simple types"}
_DIRECTIONS = ((1, 0), (1, 1), (-1, 1), (1, -1), (-1, 0), (0, 1), (-1, -1), (0, -1))
_OFFSETS = [(x * distance, y * distance) for distance in (7, 13, 20, 28, 37, 47) for x, y in _DIRECTIONS]
"""Where a label may stand from its point, in points of print, the best first."""


def draw_chart(entries: Sequence[Entry], title: str, folder: Path, name: str = "divergence") -> list[Path]:
    """Write ``name.png`` and ``name.svg``. Types without a divergence are left out; without any nothing is written.

    ConfigError when matplotlib is not installed.
    """
    points = [entry for entry in entries if entry.divergence is not None and entry.divergence.overall.mean > 0]
    if not points:
        return []
    figure = _figure()
    axes = figure.add_subplot()
    _draw_points(axes, points)
    _draw_frame(axes, points, title)
    figure.canvas.draw()
    figure.set_layout_engine("none")  # the frame stays as it is while labels find their places
    _draw_labels(figure, axes, points)
    return _save(figure, folder, name)


def _figure() -> "Figure":
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("the chart needs matplotlib: pip install 'tapster[publish]'") from None
    figure = Figure(figsize=(9, 6), dpi=150, layout="tight")
    FigureCanvasAgg(figure)
    return figure


def _draw_points(axes: "Axes", points: list[Entry]) -> None:
    for kind, color in _COLORS.items():
        found = [entry for entry in points if family(entry.type) == kind]
        if not found:
            continue
        sizes, means = [entry.megabytes for entry in found], [_mean(entry) for entry in found]
        axes.errorbar(sizes, means, yerr=_bars(found), fmt="none", ecolor=color, elinewidth=1, alpha=0.5)
        axes.scatter(sizes, means, s=28, color=color, label=_LEGEND[kind], zorder=3)


def _bars(entries: list[Entry]) -> list[list[float]]:
    """How far the interval reaches below and above the mean."""
    below, above = [], []
    for entry in entries:
        figures = _overall(entry)
        below.append(max(0.0, figures.mean - (figures.low if figures.low is not None else figures.mean)))
        above.append(max(0.0, (figures.high if figures.high is not None else figures.mean) - figures.mean))
    return [below, above]


def _draw_frame(axes: "Axes", points: list[Entry], title: str) -> None:
    axes.set_yscale("log")
    axes.set_xlabel("file size, MB")
    axes.set_ylabel("mean KL divergence from 16 bits, nats (log scale)")
    axes.set_title(title)
    axes.grid(visible=True, which="major", alpha=0.35)
    axes.grid(visible=True, which="minor", axis="y", alpha=0.12)
    axes.margins(x=0.1, y=0.12)
    if len({family(entry.type) for entry in points}) > 1:
        axes.legend(loc="upper right", frameon=False)


def _draw_labels(figure: "Figure", axes: "Axes", points: list[Entry]) -> None:
    """Put each label at the first place near its point where it covers no point and no other label."""
    renderer = cast("FigureCanvasAgg", figure.canvas).get_renderer()
    spots = [axes.transData.transform((entry.megabytes, _mean(entry))) for entry in points]
    taken = [_box_around(spot) for spot in spots]
    if legend := axes.get_legend():
        taken.append(legend.get_window_extent(renderer))
    for entry, _ in sorted(zip(points, spots, strict=True), key=lambda pair: tuple(pair[1])):
        label = axes.annotate(
            entry.type, (entry.megabytes, _mean(entry)), xytext=(0, 0), fontsize=8, textcoords="offset points"
        )
        for x, y in _OFFSETS:
            label.set(position=(x, y), ha=_side(x, "left", "right"), va=_side(y, "bottom", "top"))
            box = label.get_window_extent(renderer).padded(2)
            is_inside = axes.bbox.containsx(box.x0) and axes.bbox.containsx(box.x1)
            is_inside = is_inside and axes.bbox.containsy(box.y0) and axes.bbox.containsy(box.y1)
            if is_inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(label.get_window_extent(renderer).padded(1))


def _side(offset: int, positive: str, negative: str) -> str:
    return "center" if offset == 0 else positive if offset > 0 else negative


def _box_around(spot: Any) -> Any:
    from matplotlib.transforms import Bbox

    return Bbox.from_extents(spot[0] - 6, spot[1] - 6, spot[0] + 6, spot[1] + 6)


def _mean(entry: Entry) -> float:
    return _overall(entry).mean


def _overall(entry: Entry) -> Figures:
    assert entry.divergence is not None
    return entry.divergence.overall


def _save(figure: "Figure", folder: Path, name: str) -> list[Path]:
    paths = [folder / f"{name}.{ending}" for ending in ("png", "svg")]
    try:
        for path in paths:
            figure.savefig(path)
    except OSError as error:
        raise ConversionError(f"cannot write the chart into {folder}: {error.strerror}") from error
    return paths
