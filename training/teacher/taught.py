"""Rows in which a teacher's answers stand where the data's own stood."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...runtime.errors import ConfigError
from .answers import question_of

if TYPE_CHECKING:
    from datasets import Dataset

COLUMNS = ("output_entropy", "self_consistency", "difficulty_score")
"""Numbers that a row gets with its answer; null where they are not known of it."""

Row = dict[str, Any]


def check_columns(names: Iterable[str], rows: "Dataset") -> None:
    """Raise ConfigError where one of ``names`` comes with an answer, and some of ``rows`` ask nothing: they will not
    have it, whatever the teacher says."""
    wanted = [name for name in names if name in COLUMNS]
    if wanted and (count := sum(text is not None for text in rows["text"])):
        raise ConfigError(
            f"{wanted[0]} is known of a teacher's answers, and {count} of the {len(rows)} rows are documents, which "
            "ask nothing: train on documents in a stage of their own"
        )


def is_document(row: Mapping[str, Any]) -> bool:
    return row.get("text") is not None


def taught(row: Any, answers: Mapping[str, Mapping[str, Any]]) -> Row | None:
    """A conversation with the teacher's answer, a document as it is, both with ``COLUMNS``; None where there is no
    answer."""
    if is_document(row):
        return {**row, **dict.fromkeys(COLUMNS)}
    question = question_of(row["messages"] or ())
    if question is None or (record := answers.get(question.id)) is None:
        return None
    said = {"role": "assistant", "content": record["teacher_text"]}
    return {**row, "messages": [*question.messages, said], **{name: record[name] for name in COLUMNS}}


def with_known(names: Iterable[str], rows: Sequence[Row]) -> list[Row]:
    """Without answers of which one of ``names``, all of ``COLUMNS``, is not known, if it is known of any."""
    needed = [name for name in names if any(row[name] is not None for row in rows)]
    return [row for row in rows if is_document(row) or all(row[name] is not None for name in needed)]


def without_unknown(rows: Sequence[Row]) -> list[Row]:
    """Without those of ``COLUMNS`` that not all ``rows`` have."""
    unknown = [name for name in COLUMNS if any(row[name] is None for row in rows)]
    return [{name: value for name, value in row.items() if name not in unknown} for row in rows]
