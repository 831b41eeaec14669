"""How many rows there are to train on, without fetching them."""

from __future__ import annotations

from itertools import islice

from ...runtime.errors import ConfigError
from ..recipe.schema import Data
from .sources import open_source, parse_hub


def rows_of(data: Data) -> int | None:
    """At most so many: what is of no use is left out, and messages that form trees become fewer conversations. None
    where the Hub does not say it."""
    counts = [_rows_of(source, data.max_rows) for source in data.train]
    known = [count for count in counts if count is not None]
    if data.max_rows is not None and sum(known) >= data.max_rows:
        return data.max_rows
    return sum(known) if len(known) == len(counts) else data.max_rows


def _rows_of(source: str, most: int | None) -> int | None:
    if source == "teacher":
        return None
    if source.startswith("hub:"):
        return _on_hub(source.removeprefix("hub:"))
    return sum(1 for _ in islice(open_source(source).rows(), most))


def _on_hub(address: str) -> int | None:
    """What the data set's own card says."""
    import datasets

    name, config, split = parse_hub(address)
    try:
        splits = datasets.load_dataset_builder(name, config).info.splits or {}
        sizes = {key: one.num_examples for key, one in splits.items()}
        parts = datasets.ReadInstruction.from_spec(split).to_absolute(sizes)
        return sum(part.to - part.from_ for part in parts)
    except (OSError, ValueError, RuntimeError, ImportError, KeyError, ConfigError):  # said when it is read
        return None
