"""The comparison as a picture: how fast each decodes against what it loses, or against its memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ...runtime.errors import ConfigError
from .advice import front
from .results import CompareResult, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

_COLORS = {
    "llama.cpp": "#2457a6", "transformers": "#b5532a", "onnx": "#4d7a3a", "mlx": "#7a4d8f", "vllm": "#a6852a",
}  # fmt: skip
_LEAST_AREA, _AREA_PER_MB, _MOST_AREA = 25.0, 0.25, 900.0
_OFFSETS = [(x, y) for y in (10, -10, 22, -22, 34, -34, 46, -46) for x in (10, -10)]
"""Where a label may stand from its point, in points of print, the best first."""


@dataclass(frozen=True, slots=True)
class Point:
    row: Row
    x: float
    y: float


def require_chart() -> None:
    """ConfigError when matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise ConfigError("--chart needs matplotlib: pip install 'tapster[publish]'")


def draw_chart(result: CompareResult, path: Path) -> bool:
    """Write the picture; False when there is nothing to show. ConfigError when it cannot be written."""
    rows = [row for row in result.rows if not row.error]
    has_kld = any(row.divergence for row in rows)
    points = [point for row in rows if (point := _point(row, has_kld=has_kld))]
    if not points:
        return False
    figure = _figure()
    axes = figure.add_subplot()
    _draw_frame(axes, result, points, has_kld=has_kld)
    _draw_points(axes, points)
    _draw_front(axes, [point for point in points if point.row in front(rows)])
    if has_kld:
        axes.axhline(result.settings["max_kld"], color="#888888", linewidth=1, linestyle=":")
    figure.canvas.draw()
    _draw_labels(figure, axes, points)
    try:
        figure.savefig(path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    return True


def _point(row: Row, *, has_kld: bool) -> Point | None:
    rate, y = row.median("decode_tps"), row.mean_kld if has_kld else row.peak_bytes
    if rate is None or y is None:
        return None
    return Point(row, rate, y if has_kld else y / 1e6)


def _figure() -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _draw_frame(axes: "Axes", result: CompareResult, points: Sequence[Point], *, has_kld: bool) -> None:
    axes.set_xlabel("decode, tokens/s (one stream)")
    axes.set_title(str(result.settings["machine"]))
    axes.grid(visible=True, alpha=0.35)
    axes.margins(x=0.15, y=0.15)
    if has_kld:
        least = min((point.y for point in points if point.y > 0), default=1e-3)
        axes.set_yscale("symlog", linthresh=min(least, result.settings["max_kld"] or least), linscale=0.5)
        axes.set_ylabel(f"mean KL divergence from {result.source}, nats (log scale above 0)")
    else:
        axes.set_ylabel("memory at the peak, MB")


def _draw_points(axes: "Axes", points: Sequence[Point]) -> None:
    """The area of a point is the size on disk, its colour the engine; a line has all rounds."""
    for engine, color in _COLORS.items():
        found = [point for point in points if point.row.engine == engine]
        if not found:
            continue
        areas = [min(_MOST_AREA, _LEAST_AREA + _AREA_PER_MB * (point.row.file_bytes or 0) / 1e6) for point in found]
        xs, ys = [point.x for point in found], [point.y for point in found]
        axes.errorbar(xs, ys, xerr=_bars(found), fmt="none", ecolor=color, elinewidth=1, alpha=0.6)
        axes.scatter(xs, ys, s=areas, color=color, label=engine, alpha=0.8, zorder=3)
    axes.legend(title="engine; area: size on disk", frameon=False, fontsize=8, title_fontsize=8, markerscale=0.6)


def _bars(points: Sequence[Point]) -> list[list[float]]:
    spreads = [point.row.spread("decode_tps") for point in points]
    below = [spread.median - spread.min for spread in spreads if spread]
    return [below, [spread.max - spread.median for spread in spreads if spread]]


def _draw_front(axes: "Axes", points: list[Point]) -> None:
    points.sort(key=lambda point: point.x)
    axes.plot([p.x for p in points], [p.y for p in points], color="#888888", linewidth=1, linestyle="--", zorder=1)


def _draw_labels(figure: "Figure", axes: "Axes", points: Sequence[Point]) -> None:
    """Each at the first place near its point where it covers no point and no other label."""
    renderer = cast("FigureCanvasAgg", figure.canvas).get_renderer()
    taken = [_box_around(axes.transData.transform((point.x, point.y))) for point in points]
    if legend := axes.get_legend():
        taken.append(legend.get_window_extent(renderer))
    for point in sorted(points, key=lambda point: (point.y, point.x)):
        label = axes.annotate(
            point.row.label, (point.x, point.y), xytext=(0, 0), fontsize=8, textcoords="offset points"
        )
        for x, y in _OFFSETS:
            label.set(position=(x, y), ha="left" if x > 0 else "right", va="bottom" if y > 0 else "top")
            box = label.get_window_extent(renderer).padded(2)
            is_inside = all(axes.bbox.contains(*corner) for corner in ((box.x0, box.y0), (box.x1, box.y1)))
            if is_inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(label.get_window_extent(renderer).padded(1))


def _box_around(spot: Any) -> Any:
    from matplotlib.transforms import Bbox

    return Bbox.from_extents(spot[0] - 6, spot[1] - 6, spot[0] + 6, spot[1] + 6)
