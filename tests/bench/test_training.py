"""The benchmark of training: that both sides do the same work, and what its figures mean."""

import json
import warnings
from pathlib import Path

import pytest
from tiny_checkpoints import make_checkpoint
from tiny_tokenizer import save_tokenizer

from tapster.runtime.errors import ModelError
from tapster.server import cli
from tapster.server.bench import training, training_kernels, training_sft
from tapster.server.bench.conversion import Row
from tapster.server.bench.engines import EngineReport
from tapster.server.bench.training_turns import Turns, ratio, take_turns

pytest.importorskip("torch")
pytest.importorskip("transformers")


def quiet(_line: str) -> None:
    """Nobody watches."""


def encode(text: str) -> list[int]:
    return list(text.encode())


def test_the_ratio_is_of_neighbours_in_time() -> None:
    assert ratio(Turns([1.0, 10.0, 2.0], 0, 0), Turns([2.0, 10.0, 8.0], 0, 0)) == 0.5


def test_a_url_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "http://127.0.0.1:1", "--training"]) == 2
    assert "--training trains a model: give a MODEL, not a URL" in capsys.readouterr().err
    assert cli.main(["bench", "demmo", "--training"]) == 2
    assert "demmo" in capsys.readouterr().err


def test_what_fails_is_a_note_and_the_rest_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_args: object, **_more: object) -> list[Row]:
        raise ModelError("no such thing")

    monkeypatch.setattr(training, "_checkpoint", fails)
    monkeypatch.setattr(training, "measure_kernels", lambda **_more: [Row("losses", 0.5, "x", 1.1)])
    monkeypatch.setattr(training, "measure_teacher", fails)
    path = tmp_path / "out.json"
    assert cli.main(["bench", "demo", "--training", "--json", str(path)]) == 0
    document = json.loads(path.read_text(encoding="utf-8"))
    assert [(row["work"], row["is_met"]) for row in document["training"]] == [("losses", True)]
    assert [note.partition(":")[0] for note in document["notes"]] == ["SFT", "teacher"]
    assert "at most 1.1 x" in capsys.readouterr().out


def test_ctrl_c_keeps_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(_model: str, report: EngineReport, **_more: object) -> None:
        report.rows.append(Row("losses", 0.5, "x", 1.1))
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "measure_training", stopped)
    path = tmp_path / "out.json"
    assert cli.main(["bench", "demo", "--training", "--json", str(path)]) == 130
    document = json.loads(path.read_text(encoding="utf-8"))
    assert (len(document["training"]), len(document["notes"])) == (1, 1)


def test_full_rows_are_labels_throughout() -> None:
    rows = training_sft.full_rows(encode, 8, 4096)
    assert rows["labels"] == rows["input_ids"]
    assert [len(row) for row in rows["labels"]] == [4096] * 8


def test_answers_have_labels_and_questions_none() -> None:
    rows = training_sft.answer_rows(encode, 8, 512)
    for ids, labels in zip(rows["input_ids"], rows["labels"], strict=True):
        learnt = bytes(label if label >= 0 else ord("_") for label in labels).decode()
        assert bytes(ids).startswith(b"Q: ")
        assert len(ids) == len(labels) <= 512
        assert "Q:" not in learnt
        assert "####" in learnt
    lengths = [len(row) for row in rows["labels"]]
    assert lengths == sorted(lengths[:4], reverse=True) + sorted(lengths[4:], reverse=True)
    assert len(set(lengths)) > 2


def test_dense_and_chunked_losses_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ROWS": 2, "LENGTH": 5, "PREDICTIONS": 10, "VOCABULARY": 1100, "WIDTH": 8, "TOP_K": 4}.items():
        monkeypatch.setattr(training_kernels, name, value)
    dense, chunked = training_kernels.dense(), training_kernels.chunked("chunked")
    assert dense() == pytest.approx(chunked(), rel=1e-4)
    assert dense() == pytest.approx(dense())
    for form in ("cross-entropy", "sparse"):
        assert training_kernels.chunked(form)() > 0


def test_a_form_that_fails_says_so() -> None:
    with pytest.raises(ModelError, match="nobody"):
        take_turns("tapster.server.bench.training_trainers", {"it": ["nobody", "none", "none"]}, 1, "it", quiet)


def test_both_trainers_on_a_tiny_model(tmp_path: Path) -> None:
    """The real processes: a step to warm up, then one in turn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's and transformers' own
        checkpoint = make_checkpoint("llama", tmp_path / "tiny", save_tokenizer).folder
    rows = training_sft.full_rows(lambda text: [ord(letter) % 250 for letter in text], 12, 16)
    found = {row.work: row for row in training_sft.contest(checkpoint, "tiny", rows, True, 1, quiet)}
    rates = [row for row in found.values() if row.unit == "tok/s"]
    assert all(row.value > 0 for row in rates)
    assert len(rates) == (2 if training_sft.has_trl() else 1)
    if training_sft.has_trl():
        assert found["SFT steps of 4 x 16, tiny: tapster / TRL"].bar == 1.1
        assert found["its peak memory / TRL's"].value > 0
