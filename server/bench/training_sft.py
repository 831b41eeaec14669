"""Supervised fine-tuning by our trainer and by TRL's: the same float32 model, rows, micro-batches and AdamW.

Two kinds of rows. In *full* rows every token is a label, so both do the same products but for what they do twice; the
bars are held there. *Answers* are rows of several questions with worked answers, of different lengths, the questions
without labels.
"""

import json
import random
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .contest import Say
from .conversion import Row
from .training_trainers import BATCH
from .training_turns import Turns, ratio, take_turns

LENGTH, SHORTEST, IGNORED = 512, 192, -100
RATE_BAR, MEMORY_BAR = 1.1, 1.0
Rows = dict[str, list[list[int]]]
"""``input_ids`` and ``labels``."""
Encode = Callable[[str], list[int]]


def measure_sft(checkpoint: Path, *, repeat: int, say: Say, length: int = LENGTH) -> tuple[list[Row], list[str]]:
    """The lines of the report, and notes. Raises ModelError or EngineError when a trainer fails."""
    encode = _encoder(checkpoint)
    num = (repeat + 2) * BATCH  # a step to warm up, and one that is never reached, so that nothing is saved
    kinds = {
        "every token a label": (full_rows(encode, num, length), True),
        "answers only": (answer_rows(encode, num, length), False),
    }
    rows = [
        row
        for kind, (made, has_bars) in kinds.items()
        for row in contest(checkpoint, kind, made, has_bars, repeat, say)
    ]
    return rows, [] if has_trl() else ["TRL: not measured: it is not installed (pip install trl)"]


def contest(checkpoint: Path, kind: str, rows: Rows, has_bars: bool, repeat: int, say: Say) -> Iterator[Row]:
    names = ("tapster", "trl") if has_trl() else ("tapster",)
    with tempfile.TemporaryDirectory(prefix="tapster-bench-") as folder:
        file = Path(folder) / "rows.json"
        file.write_text(json.dumps(rows), encoding="utf-8")
        contestants = {name: [name, str(checkpoint), str(file)] for name in names}
        found = take_turns(f"{__package__}.training_trainers", contestants, repeat, f"SFT, {kind}", say)
    what = f"SFT steps of {BATCH} x {max(map(len, rows['labels']))}, {kind}"
    for name, turns in zip(names, found, strict=True):
        yield Row(f"{what}: {name}", _tokens(rows, turns), "tok/s")
        yield Row("its peak memory", turns.peak_bytes / 1e6, "MB")
    if len(found) == 2:
        ours, theirs = found
        bar = RATE_BAR if has_bars else None
        yield Row(f"{what}: tapster / TRL", 1 / ratio(ours, theirs), "x", bar, is_at_least=True)
        memory_bar = MEMORY_BAR if has_bars else None
        yield Row("its peak memory / TRL's", ours.peak_bytes / theirs.peak_bytes, "x", memory_bar)


def _tokens(rows: Rows, turns: Turns) -> float:
    """A second, without padding. The first step is not among the turns."""
    lengths = list(map(len, rows["input_ids"]))
    return sum(lengths[BATCH : BATCH * (1 + len(turns.seconds))]) / sum(turns.seconds)


def has_trl() -> bool:
    return find_spec("trl") is not None


def full_rows(encode: Encode, num: int, length: int) -> Rows:
    """Prose, cut into rows."""
    from ...training.data.sources import SAMPLES

    tokens = encode((SAMPLES / "prose.txt").read_text(encoding="utf-8"))
    ids = (tokens * (num * length // len(tokens) + 1))[: num * length]
    cut = [ids[at : at + length] for at in range(0, len(ids), length)]
    return {"input_ids": cut, "labels": cut}


def answer_rows(encode: Encode, num: int, length: int) -> Rows:
    """Questions and answers, one behind the other up to a length that differs from row to row. The rows of each step
    are sorted by length, so that both trainers have as little padding."""
    from ...training.data.sources import SAMPLES

    lines = [json.loads(line) for line in (SAMPLES / "sums.jsonl").read_text(encoding="utf-8").splitlines()]
    pairs = [(encode(f"Q: {line['question']}\nA:"), encode(f" {line['answer']}\n")) for line in lines]
    dice = random.Random(0)
    lengths = [dice.randint(length * SHORTEST // LENGTH, length) for _ in range(num)]
    lengths = [size for at in range(0, num, BATCH) for size in sorted(lengths[at : at + BATCH], reverse=True)]
    rows: dict[str, list[Any]] = {"input_ids": [], "labels": []}
    for size in lengths:
        ids, labels = [], []
        while len(ids) < size:
            question, answer = dice.choice(pairs)
            ids += question + answer
            labels += [IGNORED] * len(question) + answer
        rows["input_ids"].append(ids[:size])
        rows["labels"].append(labels[:size])
    return rows


def _encoder(checkpoint: Path) -> Encode:
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
    return lambda text: tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
