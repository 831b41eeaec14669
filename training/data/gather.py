"""The sources of a stage as one data set of examples, before they become tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from math import inf, isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime.errors import ConfigError
from .examples import Conversation, Document, Example, Unusable
from .formats import converter
from .oasst import grow_trees
from .sources import Source
from .store import kept_notes, key_of, stored_rows

if TYPE_CHECKING:
    from datasets import Dataset

VERSION = 3
"""Raised when the same sources come to mean other rows."""
MESSAGE_KEYS = ("role", "content", "reasoning_content")
NOT_COLUMNS = ("messages", "text", "index")
GROUP = "group"
"""The column that neighbours have in common which are answers to one question, ranked."""
_TRIED = 1000
"""If so many rows at the beginning of a source are of no use, the others are not looked at."""


def gathered(
    sources: Sequence[Source], format_name: str, folder: Path, *, needs_answer: bool = True
) -> tuple[Dataset, list[str]]:
    """Examples of all sources, one after the other, stored in ``folder``, and what was left out.

    Columns: ``messages`` or ``text`` (the other is null), ``index`` (its number), and the numbers that every source
    has; groups are numbered from 0. ``needs_answer``: see ``converter``. ConfigError when there is no example.
    """
    from datasets import Features, List, Value

    key = key_of(VERSION, [source.fingerprint for source in sources], format_name, needs_answer)
    path = folder / f"examples-{key}.arrow"
    readers = [_Reader(source, format_name, needs_answer) for source in sources]
    names = [] if path.is_file() else _common_columns(readers)  # what is stored is not read again
    features: dict[str, Any] = {
        "messages": List({name: Value("string") for name in MESSAGE_KEYS}),
        "text": Value("string"),
        "index": Value("int64"),
        **{name: Value("float64") for name in names},
    }
    rows = ({**_stored(example, names), "index": idx} for idx, example in enumerate(_all_of(readers)))
    data = stored_rows(path, Features(features), rows)
    notes = kept_notes(path, [note for reader in readers for note in reader.notes()])
    if not len(data):
        raise ConfigError("; ".join(notes) or f"{', '.join(source.name for source in sources)}: there are no rows")
    columns = set(data.column_names) - set(NOT_COLUMNS)
    return data.remove_columns([name for name in sorted(columns) if not _is_whole(data, name)]), notes


def example_of(row: Mapping[str, Any]) -> Example:
    """A stored example back."""
    if row.get("text") is not None:
        return Document(row["text"])
    messages = [{key: value for key, value in message.items() if value is not None} for message in row["messages"]]
    return Conversation(messages)


def _common_columns(readers: Iterable[_Reader]) -> list[str]:
    return sorted(set.intersection(*(reader.columns() for reader in readers)) - set(NOT_COLUMNS))


def _all_of(readers: Iterable[_Reader]) -> Iterator[Example]:
    """Groups are numbered anew: ids of several sources may be the same, and those above 2^24 are no float32."""
    numbers: dict[tuple[_Reader, float], int] = {}
    for reader in readers:
        for example in reader:
            if GROUP in example.columns:
                number = numbers.setdefault((reader, example.columns[GROUP]), len(numbers))
                example = replace(example, columns={**example.columns, GROUP: number})
            yield example


def _stored(example: Example, names: Sequence[str]) -> dict[str, Any]:
    is_text = isinstance(example, Document)
    messages = None if is_text else [{key: turn.get(key) for key in MESSAGE_KEYS} for turn in example.messages]
    columns = {name: _as_float(example.columns.get(name, nan)) for name in names}
    return {"messages": messages, "text": example.text if is_text else None, **columns}


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # of an int
        return inf


def _is_whole(data: Dataset, name: str) -> bool:
    """Whether every row has this number. What holds a NaN or infinity is no number to sort or weigh by."""
    return all(isfinite(value) for value in data[name])


class _Reader:
    """The examples of one source; counts what it leaves out, by reason."""

    def __init__(self, source: Source, format_name: str, needs_answer: bool) -> None:
        self._source = source
        self._convert = converter(format_name, needs_answer=needs_answer)
        self._may_be_trees = format_name in ("auto", "oasst")
        self._reasons: Counter[str] = Counter()
        self._num_rows = 0

    def columns(self) -> set[str]:
        """The numbers that its first useful row has, whether or not that one is wanted."""
        example = next(self._examples(first=0), None)
        return set(example.columns) if example else set()

    def __iter__(self) -> Iterator[Example]:
        return self._examples(self._source.first)

    def _examples(self, first: int) -> Iterator[Example]:
        self._reasons.clear()
        self._num_rows = 0
        rows = self._source.rows()
        wanted = islice(grow_trees(rows) if self._may_be_trees else rows, first, None)
        for row in islice(wanted, self._source.count):
            self._num_rows += 1
            try:
                yield self._convert(row)
            except Unusable as error:
                self._reasons[str(error)] += 1
                if self._reasons.total() == self._num_rows == _TRIED:
                    raise ConfigError("; ".join(self.notes())) from None

    def notes(self) -> list[str]:
        """A line for each reason, if anything was left out, and a warning before them if that is most of it."""
        name, lost = self._source.name, self._reasons.total()
        lines = [
            f"{name}: {count} of {self._num_rows} rows left out, because {reason}"
            for reason, count in self._reasons.most_common(5)
        ]
        if self._num_rows < 2 * lost:
            lines.insert(0, f"warning: {name}: most of it is of no use: {lost} of {self._num_rows} rows")
        return lines
