"""Figures with bars that point either way, as a table for people and as JSON for programs."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...converters.publish.speed import this_machine
from .conversion import Row

if TYPE_CHECKING:
    from rich.console import Console


def rows_to_json(rows: Sequence[Row], what: str = "conversion", notes: Sequence[str] = ()) -> str:
    """Every figure with its bar."""
    document = {"machine": str(this_machine()), what: [row.to_json() for row in rows], "notes": list(notes)}
    return json.dumps(document, indent=2)


def print_rows(rows: Sequence[Row], console: "Console", what: str = "conversion", notes: Sequence[str] = ()) -> None:
    """One line a figure."""
    from rich import box
    from rich.table import Table

    table = Table(what, "measured", "bar", "", box=box.SIMPLE, pad_edge=False)
    for row in rows:
        bar = "" if row.bar is None else f"{'at least' if row.is_at_least else 'at most'} {row.bar:g} {row.unit}"
        met = {None: "", True: "met", False: "MISSED"}[row.is_met]
        figure = f"{row.value:,.0f}" if row.value >= 1000 else f"{row.value:.3g}"
        table.add_row(row.work, f"{figure} {row.unit}", bar, met)
    console.print(table)
    for note in notes:
        console.print(f"note: {note}", style="dim", soft_wrap=True, markup=False)
