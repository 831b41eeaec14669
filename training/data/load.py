"""The rows that a stage trains on and is evaluated on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...runtime.errors import ConfigError
from ..recipe.needs import asks_teacher
from ..recipe.schema import Recipe, Stage
from .encode import Encoder
from .examples import Unusable
from .gather import GROUP, NOT_COLUMNS, example_of, gathered
from .packing import best_fit, packed
from .sources import Source, canonical, open_source
from .store import content_key, kept_notes, key_of, stored_rows

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

TeacherRows = Callable[["Dataset"], "Dataset"]

LENGTH = "length"
"""A column that every data set can be ordered by: the number of tokens."""
_HELD_OUT = 10
"""At most one row in so many is held out."""


@dataclass(frozen=True)
class StageData:
    """``train`` and ``eval`` have ``input_ids``, ``labels``, ``index`` (one numbering for both), ``segments`` where
    packed, and columns of numbers. ``fingerprints`` say what went in; ``notes`` what was left out."""

    train: Dataset
    eval: Dataset | None
    fingerprints: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class StageExamples:
    """Conversations and documents, not yet tokens (``gather.gathered``). ``eval`` is None where rows are held out."""

    train: Dataset
    eval: Dataset | None
    fingerprints: list[dict[str, Any]]
    notes: list[str]


def load_examples(stage: Stage, recipe: Recipe, out: Path) -> StageExamples:
    """What the sources of a stage hold. ConfigError for a source that is not there, unknown or empty."""
    if not stage.data.train:
        raise ConfigError(f"the stage {stage.name} has no training data: name some in data.train, or with --data")
    train, notes = _examples(stage.data.train, stage, recipe, out, stage.data.max_rows)
    names, held = [*stage.data.train], None
    if stage.data.eval:
        held, more = _examples(stage.data.eval, stage, recipe, out, None)
        names, notes = [*names, *stage.data.eval], [*notes, *more]
    fingerprints = [_open(name, stage, recipe, out, stage.data.max_rows).fingerprint for name in dict.fromkeys(names)]
    return StageExamples(train, held, fingerprints, notes)


def load_rows(
    stage: Stage,
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase,
    out: Path,
    *,
    chat_template: str | None = None,
    needs_columns: Sequence[str] = (),
    teacher_rows: TeacherRows | None = None,
) -> StageData:
    """The rows of a stage, made once and kept in ``out``/data.

    ``teacher_rows`` replaces answers and adds columns, before anything becomes tokens. ``needs_columns``: what the
    terms of the loss cannot do without. ConfigError when a source, a column or every label is missing.
    """
    examples = load_examples(stage, recipe, out)
    encoder = Encoder(
        tokenizer,
        max_length=stage.sequence_length,
        chat_template=chat_template,
        loss_on=stage.data.loss_on,
    )
    train, notes = _encoded(_taught(examples.train, teacher_rows), encoder, stage, out, first=0)
    if examples.eval is None:
        train, held = _held_out(train, stage)
    else:
        held, more = _encoded(_taught(examples.eval, teacher_rows), encoder, stage, out, first=len(train))
        notes = [*notes, *more]
    _require_columns(train, [*needs_columns, *_ordered_by(stage)], stage)
    if GROUP in needs_columns:
        _require_neighbours(train, stage)
    if stage.data.packing:
        train = _packed(train, 0, needs_columns, stage, out)
        held = held and _packed(held, len(train), (), stage, out)
    return StageData(train, held, examples.fingerprints, [*examples.notes, *notes])


def _taught(examples: Dataset, teacher_rows: TeacherRows | None) -> Dataset:
    """With the teacher's answers, where there are questions at all: documents ask nothing."""
    return teacher_rows(examples) if teacher_rows is not None and any(examples["messages"]) else examples


def training_texts(recipe: Recipe, out: Path) -> Iterator[str]:
    """All text that the stages of a recipe train on: what a tokenizer is made from."""
    for names, stage in {tuple(stage.data.train): stage for stage in recipe.stages if stage.data.train}.items():
        examples: Any = _examples(names, stage, recipe, out, stage.data.max_rows)[0]
        for row in examples:
            if row["text"] is not None:
                yield row["text"]
            else:
                yield from (part for turn in row["messages"] for part in turn.values() if part is not None)


def _open(name: str, stage: Stage, recipe: Recipe, out: Path, max_rows: int | None) -> Source:
    cache = recipe.teacher.cache if recipe.teacher else None
    teacher = Path(cache) if cache else out / "teacher"
    return open_source(name, teacher=teacher, max_rows=max_rows, passed=_taken_before(name, stage, recipe))


def _taken_before(name: str, stage: Stage, recipe: Recipe) -> int:
    """How many rows of a stream the stages before this one read, so that no row of one is held out in another."""
    wanted, earlier = canonical(name), takewhile(lambda other: other.name != stage.name, recipe.stages)
    return sum(other.data.max_rows or 0 for other in earlier if wanted in map(canonical, other.data.train))


def _examples(
    names: Sequence[str], stage: Stage, recipe: Recipe, out: Path, max_rows: int | None
) -> tuple[Dataset, list[str]]:
    sources = [_open(name, stage, recipe, out, max_rows) for name in names]
    data, notes = gathered(sources, stage.data.format, out / "data", needs_answer=not asks_teacher(stage, recipe))
    if max_rows is not None and len(data) > max_rows:
        units, of_unit = _units(data)
        count = max(1, max_rows * len(units) // len(data))
        chosen = np.random.default_rng(stage.seed).choice(units, count, replace=False)
        data = data.select(np.flatnonzero(np.isin(of_unit, chosen)))
    return data, notes


def _encoded(examples: Dataset, encoder: Encoder, stage: Stage, out: Path, *, first: int) -> tuple[Dataset, list[str]]:
    from datasets import Features, List, Value

    names = [name for name in examples.column_names if name not in NOT_COLUMNS and _is_number(examples, name)]
    features: dict[str, Any] = {
        "input_ids": List(Value("int32")),
        "labels": List(Value("int32")),
        "index": Value("int64"),
    }
    columns = [*names, *([LENGTH] if LENGTH in _ordered_by(stage) else [])]
    features |= {name: Value("float64") for name in columns}
    tally: Counter[str] = Counter()
    key = key_of(content_key(examples), encoder.identity(), columns, first)
    rows = _encoded_rows(examples, encoder, columns, tally, first)
    path = out / "data" / f"rows-{key}.arrow"
    data = stored_rows(path, Features(features), rows)
    notes = [
        f"{stage.name}: {count} of {len(examples)} examples {reason}" for reason, count in tally.most_common(5) if count
    ]
    notes = kept_notes(path, notes)
    if not len(data):
        raise ConfigError(
            f"the stage {stage.name} has nothing to train on: {'; '.join(notes) or 'all its examples are empty'}. "
            f"Give it a longer sequence_length or other data"
        )
    return data, notes


def _is_number(data: Dataset, name: str) -> bool:
    return getattr(data.features[name], "dtype", "").startswith(("int", "float"))


def _encoded_rows(
    examples: Dataset, encoder: Encoder, columns: Sequence[str], tally: Counter[str], first: int
) -> Iterator[dict[str, Any]]:
    index = first
    rows: Any = examples
    for row in rows:
        try:
            found = encoder.rows(example_of(row))
        except Unusable as error:
            tally[f"left out, because {error}"] += 1
            continue
        for encoded in found:
            tally["cut at the end"] += encoded.is_cut
            numbers = {**row, LENGTH: len(encoded.input_ids)}
            values = {"input_ids": encoded.input_ids, "labels": encoded.labels, "index": index}
            yield values | {name: float(numbers[name]) for name in columns}
            index += 1


def _held_out(data: Dataset, stage: Stage) -> tuple[Dataset, Dataset | None]:
    """Some rows for evaluation, chosen by the stage's seed; at most a tenth."""
    units, of_unit = _units(data)
    count = min(stage.data.eval_rows, len(data) // _HELD_OUT) * len(units) // len(data)
    if not count:
        return data, None
    is_held = np.isin(of_unit, np.random.default_rng(stage.seed).permutation(units)[:count])
    return data.select(np.flatnonzero(~is_held)), data.select(np.flatnonzero(is_held))


def _units(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """What is chosen whole, and to which of these each row belongs: the answers of a group, else single rows."""
    of_unit = np.asarray(data[GROUP], np.int64) if GROUP in data.column_names else np.arange(len(data))
    return np.unique(of_unit), of_unit


def _ordered_by(stage: Stage) -> list[str]:
    curriculum = stage.data.curriculum
    if curriculum.order in ("shuffle", "as-is"):
        return []
    if curriculum.by is None:
        raise ConfigError(f"the stage {stage.name} orders its rows as {curriculum.order}: say by which column")
    return [curriculum.by]


def _require_columns(data: Dataset, names: Sequence[str], stage: Stage) -> None:
    have = [name for name in data.column_names if name not in ("input_ids", "labels", "index")]
    for name in names:
        if name not in have:
            near = get_close_matches(name, have, n=1)
            hint = f"did you mean {near[0]}?" if near else f"they have {', '.join(have) or 'no numbers'}"
            raise ConfigError(f"the stage {stage.name} needs the column {name}, which not all of its rows have: {hint}")


def _require_neighbours(data: Dataset, stage: Stage) -> None:
    groups = np.asarray(data[GROUP])
    if np.count_nonzero(np.diff(groups)) + 1 != len(np.unique(groups)):
        raise ConfigError(
            f"the stage {stage.name} ranks the answers of a group, and in its data other rows stand between them: sort "
            f"the data by {GROUP}"
        )


def _packed(data: Dataset, first: int, needs_columns: Sequence[str], stage: Stage, out: Path) -> Dataset:
    from datasets import Features, List, Value

    if columns := [*needs_columns, *_ordered_by(stage)]:
        raise ConfigError(f"the stage {stage.name} packs rows and needs {columns[0]} of each: set data.packing = false")
    lists = {name: List(Value("int32")) for name in ("input_ids", "labels", "segments")}
    packs = best_fit([len(ids) for ids in data["input_ids"]], stage.sequence_length)
    rows = ({**packed([data[row] for row in pack]), "index": first + idx} for idx, pack in enumerate(packs))
    path = out / "data" / f"packed-{key_of(content_key(data), stage.sequence_length, first)}.arrow"
    return stored_rows(path, Features({**lists, "index": Value("int64")}), rows)
