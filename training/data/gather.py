"""The sources of a stage as one data set of examples, before they become tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from math import isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime.errors import ConfigError
from .examples import Conversation, Document, Example, Unusable
from .formats import converter, detect_format
from .oasst import grow_trees
from .sources import Source
from .store import kept_notes, key_of, stored_rows

if TYPE_CHECKING:
    from datasets import Dataset

VERSION = 1
"""Raised when the same sources come to mean other rows."""
MESSAGE_KEYS = ("role", "content", "reasoning_content")
NOT_COLUMNS = ("messages", "text", "index")


def gathered(sources: Sequence[Source], format_name: str, folder: Path) -> tuple[Dataset, list[str]]:
    """Examples of all sources, one after the other, stored in ``folder``, and what was left out.

    Columns: ``messages`` or ``text`` (the other is null), ``index`` (its number), and the numbers that every source
    has. ConfigError when there is no example.
    """
    from datasets import Features, List, Value

    key = key_of(VERSION, [source.fingerprint for source in sources], format_name)
    readers = [_Reader(source, format_name) for source in sources]
    names = sorted(set.intersection(*(reader.columns() for reader in readers)) - set(NOT_COLUMNS))
    features: dict[str, Any] = {
        "messages": List({name: Value("string") for name in MESSAGE_KEYS}),
        "text": Value("string"),
        "index": Value("int64"),
        **{name: Value("float64") for name in names},
    }
    examples = (example for reader in readers for example in reader)
    rows = ({**_stored(example, names), "index": idx} for idx, example in enumerate(examples))
    path = folder / f"examples-{key}.arrow"
    data = stored_rows(path, Features(features), rows)
    notes = kept_notes(path, [note for reader in readers for note in reader.notes()])
    if not len(data):
        raise ConfigError("; ".join(notes) or f"{', '.join(source.name for source in sources)}: there are no rows")
    return data.remove_columns([name for name in names if not _is_whole(data, name)]), notes


def example_of(row: Mapping[str, Any]) -> Example:
    """A stored example back."""
    if row.get("text") is not None:
        return Document(row["text"])
    messages = [{key: value for key, value in message.items() if value is not None} for message in row["messages"]]
    return Conversation(messages)


def _stored(example: Example, names: Sequence[str]) -> dict[str, Any]:
    is_text = isinstance(example, Document)
    messages = None if is_text else [{key: turn.get(key) for key in MESSAGE_KEYS} for turn in example.messages]
    columns = {name: example.columns.get(name, nan) for name in names}
    return {"messages": messages, "text": example.text if is_text else None, **columns}


def _is_whole(data: Dataset, name: str) -> bool:
    """Whether every row has this number. What holds a NaN is no number to sort or weigh by."""
    return all(isfinite(value) for value in data[name])


class _Reader:
    """The examples of one source; counts what it leaves out, by reason."""

    def __init__(self, source: Source, format_name: str) -> None:
        self._source = source
        self._format = format_name
        self._reasons: Counter[str] = Counter()
        self._num_rows = 0

    def columns(self) -> set[str]:
        """The numbers that its first useful row has."""
        example = next(iter(self), None)
        return set(example.columns) if example else set()

    def __iter__(self) -> Iterator[Example]:
        self._reasons.clear()
        self._num_rows = 0
        rows = self._source.rows()
        first = next(rows, None)
        if first is None:
            return
        name = detect_format(first) if self._format == "auto" else self._format
        convert, rows = converter(name), chain([first], rows)
        for row in grow_trees(rows) if name == "oasst" else rows:
            self._num_rows += 1
            try:
                yield convert(row)
            except Unusable as error:
                self._reasons[str(error)] += 1

    def notes(self) -> list[str]:
        """A line for each reason, if anything was left out."""
        return [
            f"{self._source.name}: {count} of {self._num_rows} rows left out, because {reason}"
            for reason, count in self._reasons.most_common(5)
        ]
