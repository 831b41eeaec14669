"""Right answers beside wrong ones."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .answers import Checker, Worked, is_right
from .questions import Question

Pair = tuple[Worked, Worked]
"""A right answer and a wrong one to the same question."""


def pair_up(answers: Sequence[Worked], gold: str, checker: Checker) -> list[Pair]:
    """As many pairs as there are answers of the rarer kind; each answer is in one pair at most, and equal answers
    count once."""
    distinct = list(dict.fromkeys(answers))
    right = [answer for answer in distinct if is_right(answer.answer, gold, checker)]
    wrong = [answer for answer in distinct if not is_right(answer.answer, gold, checker)]
    return list(zip(right, wrong, strict=False))


def pair_rows(question: Question, pair: Pair, group: int) -> list[dict[str, Any]]:
    """Two rows of training data, the right answer (rank 0) first."""
    return [
        {"messages": [*question.messages, _message(answer, question.is_apart)], "group": group, "rank": rank}
        for rank, answer in enumerate(pair)
    ]


def write_pairs(path: Path, pairs: Sequence[tuple[Question, Pair]], seed: int) -> None:
    """As JSONL, in random order, the rows of a pair side by side. The file is whole or not there."""
    shuffled = random.Random(seed).sample(pairs, len(pairs))
    rows = [row for group, (question, pair) in enumerate(shuffled) for row in pair_rows(question, pair, group)]
    growing = path.with_name(f".{path.name}.growing")
    with growing.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())
    growing.replace(path)


def _message(answer: Worked, is_apart: bool) -> dict[str, str]:
    if is_apart:
        return {"role": "assistant", "content": answer.answer, "reasoning_content": answer.rationale}
    return {"role": "assistant", "content": answer.text}
