"""The comparison as a table for people and as JSON for programs."""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ...converters.proof.figures import shown
from .advice import front
from .memory import COUNTED
from .results import CompareResult, Row
from .rounds import EXPLAINS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_SPEEDS = (
    ("load_s", "load, s", 2),
    ("prefill_tps", "prefill, tok/s", 0),
    ("decode_tps", "decode, tok/s", 1),
    ("streams_tps", "4 streams, tok/s", 1),
    ("ttft_ms", "TTFT, ms", 0),
)
_NOTHING = "–"


def to_json(result: CompareResult) -> str:
    """The whole result; a figure is its median, min and max over the rounds."""
    on_front = {id(row) for row in front(_running(result))}
    advice = result.advice
    document = {
        "settings": result.settings,
        "source": result.source,
        "source_note": result.source_note,
        "models": [row.to_json(id(row) in on_front) for row in result.rows],
        "recommendation": advice
        and {
            "model": advice.label,
            "text": advice.text,
            "rule": advice.rule,
            "about_as_fast": list(advice.about_as_fast),
        },
        "explains": {**EXPLAINS, "peak_bytes": COUNTED},
        "ended": result.ended,
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def print_comparison(result: CompareResult, console: "Console") -> None:
    """The table, what its figures mean, and the advice."""
    console.print(_table(result))
    for line in _errors(result):
        console.print(line, style="red", soft_wrap=True, markup=False)
    for line in _lines(result):
        console.print(line, style="dim", soft_wrap=True, markup=False)
    if result.ended:
        console.print(f"{result.ended}: this is what was measured so far", soft_wrap=True, markup=False)
    if result.advice:
        console.print(result.advice.text, style="bold", soft_wrap=True, markup=False)


def _table(result: CompareResult) -> "Table":
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False, header_style="bold")
    for name in ("", "model", "engine"):
        table.add_column(name, overflow="fold")
    for name in ("size, MB", *(title for _, title, _ in _SPEEDS), "memory, MB", "mean KLD, nats", "top-1, %"):
        table.add_column(name, justify="right")
    on_front = {id(row) for row in front(_running(result))}
    for row in result.rows:
        mark = "*" if id(row) in on_front else ""
        table.add_row(mark, escape(row.label), row.engine or _NOTHING, *_cells(row))
    return table


def _cells(row: Row) -> Iterator[str]:
    yield _megabytes(row.file_bytes)
    for name, _, decimals in _SPEEDS:
        median = row.median(name)
        yield _NOTHING if median is None else f"{median:,.{decimals}f}"
    yield _megabytes(row.peak_bytes)
    yield _kld(row)
    yield _NOTHING if row.top1 is None else f"{100 * row.top1:.1f}"


def _kld(row: Row) -> str:
    if row.is_source:
        return "source"
    if row.divergence is None:
        return _NOTHING
    figures = row.divergence.overall
    return shown(figures.mean, figures.low, figures.high)


def _errors(result: CompareResult) -> Iterator[str]:
    for row in result.rows:
        if row.error:
            yield f"{row.label}: {row.error}"


def _lines(result: CompareResult) -> Iterator[str]:
    settings = result.settings
    yield (
        f"{'One round' if settings['repeat'] == 1 else 'Medians of ' + str(settings['repeat']) + ' rounds'}, each in a "
        f"server of its own over HTTP, by turns; "
        f"{settings['prompt_tokens']} prompt tokens for prefill, {settings['tokens']} new tokens for the rest; "
        f"{settings['machine']}."
    )
    yield from _scatter(result.rows)
    names = {name: title.partition(",")[0] for name, title, _ in _SPEEDS}
    yield from (f"{names[name]}: {text}" for name, text in EXPLAINS.items())
    yield f"memory: {COUNTED}"
    if result.source_note:
        yield f"KLD: {result.source_note}"
    elif result.source:
        yield f"KLD: compared with {result.source}, as asked"
    if settings["kld_tokens"] and result.source:
        yield f"KLD: on {settings['kld_tokens']:,} tokens of held-out chats, which the source's tokenizer cut"
    yield from (f"{row.label}: no divergence: {row.kld_note}" for row in result.rows if row.kld_note)
    if result.advice:
        has_kld = any(row.mean_kld is not None for row in _running(result))
        other = "a smaller divergence" if has_kld else "less memory"
        yield f"*: no other both decodes faster and has {other}. Recommended is {result.advice.rule}."


def _running(result: CompareResult) -> list[Row]:
    return [row for row in result.rows if not row.error]


def _scatter(rows: Sequence[Row]) -> Iterator[str]:
    """How far apart the rounds are, of the figure where they are furthest."""
    found = [(row, title, spread) for row in rows for name, title, _ in _SPEEDS if (spread := row.spread(name))]
    found = [item for item in found if item[2].max > item[2].min]
    if found:
        row, title, spread = max(found, key=lambda item: item[2].max / item[2].min)
        name, _, unit = title.partition(", ")
        yield f"Rounds were furthest apart for {row.label}, {name}: {spread.min:,.3g} to {spread.max:,.3g} {unit}."


def _megabytes(count: float | None) -> str:
    return _NOTHING if count is None else f"{count / 1e6:,.0f}"
