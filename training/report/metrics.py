"""What is measured while a stage trains: a line of JSON each time, TensorBoard, and the terminal.

A record of ``metrics.jsonl`` is ``{"stage", "step", "kind", "time", …}``. ``kind`` is ``train`` or ``eval``, ``step``
counts optimiser steps of the stage, ``time`` is in seconds since 1970. Names of the values, all of them optional:

    loss  learning_rate  grad_norm  tokens  tokens_per_s  epoch
    terms/LABEL           a term's value, unweighted           weights/LABEL   its weight at this step
    gradient_share/LABEL  its part of the gradient's norm      state/NAME      what a stateful term reports
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from .display import Display, Silent

FILE = "metrics.jsonl"
TENSORBOARD = "tensorboard"
Kind = Literal["train", "eval"]


class Metrics:
    """Where the numbers of a run go. One process of a run has one; the others leave it out."""

    def __init__(self, out: Path, display: Display | None = None, *, tensorboard: bool = True) -> None:
        self._path = out / FILE
        self._boards = out / TENSORBOARD if tensorboard else None
        self._display = display or Silent()
        self._board: Any = None
        self._stage = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def begin(self, stage: str, total_steps: int, done: int = 0) -> None:
        """A stage starts, or goes on after ``done`` steps: what an earlier attempt logged beyond them is dropped."""
        self.close()
        self._stage = stage
        _keep(self._path, lambda record: record["stage"] != stage or (record["step"] <= done and done > 0))
        self._display.begin(stage, total_steps, done)
        if self._boards is not None:
            self._board = _board(self._boards / stage, done)

    def log(self, step: int, values: Mapping[str, float], kind: Kind = "train") -> None:
        """Write one record. Values that are no finite numbers are written as null."""
        record = {"stage": self._stage, "step": step, "kind": kind, "time": round(time.time(), 3)}
        record |= {name: _finite(value) for name, value in values.items()}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)
        self._display.log(step, values, kind)

    def step(self, step: int) -> None:
        """An optimiser step is done: the bar moves."""
        self._display.step(step)

    def close(self) -> None:
        """The stage has ended, well or not."""
        self._display.end()
        if self._board is not None:
            self._board.close()
            self._board = None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a ``metrics.jsonl``; none where there is no file. A line that was cut off is left out."""
    return list(_records(path)) if path.is_file() else []


def _records(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            continue


def _keep(path: Path, wanted: Any) -> None:
    records = read_metrics(path)
    kept = [record for record in records if wanted(record)]
    path.parent.mkdir(parents=True, exist_ok=True)
    if len(kept) < len(records) or (path.is_file() and not path.read_bytes().endswith(b"\n")):
        beside = path.with_suffix(".jsonl.new")
        beside.write_text("".join(json.dumps(record) + "\n" for record in kept), encoding="utf-8")
        beside.replace(path)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _board(folder: Path, done: int) -> Any:
    """A TensorBoard writer, or None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=done + 1 if done else None)
