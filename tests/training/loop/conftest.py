"""Data, a teacher, and one thread: sums over several come out in another order each time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from loop_runs import STILL, questions, recipe, run

from tapster.training.report import picture


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    gc.freeze()  # what was imported is not looked at again each time a run cleans up
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes longer than all the rest. Processes of their own draw it."""
    monkeypatch.setattr(picture, "draw_losses", lambda *_: False)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return questions(tmp_path_factory.mktemp("data") / "sums.jsonl")


@pytest.fixture(scope="session")
def teacher(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows more than a student at its beginning, with the same tokens."""
    out = tmp_path_factory.mktemp("teacher") / "run"
    run(recipe(data, {"steps": 12, "save_steps": None, "optimizer": {"lr": 1e-2}}, scratch=STILL), out)
    return out / "model"
