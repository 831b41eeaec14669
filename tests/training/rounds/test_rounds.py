"""Rounds on a tiny model that gives right and wrong answers, about one each: sampled, checked, trained, merged."""

import json
from pathlib import Path

import pytest
import torch
from kda_models import tiny_teacher
from safetensors.torch import load_file
from tiny_tokenizer import save_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from tapster.runtime.errors import TrainingError
from tapster.training.recipe.schema import Rounds
from tapster.training.rounds.answers import is_right, split_answer
from tapster.training.rounds.questions import Question
from tapster.training.rounds.run import run_rounds

QUESTIONS = [
    Question(({"role": "user", "content": f"the dog {name}?"},), "4", "number", is_apart=False) for name in "abc"
]
ROUNDS = Rounds(count=2, samples=8, temperature=1.0, top_p=1.0, max_tokens=24)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learnt by heart to answer 4 or 5, after one of two rationales."""
    folder = tmp_path_factory.mktemp("rounds") / "student"
    folder.mkdir()
    size = save_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = tiny_teacher(vocab_size=size, pad_token_id=0, initializer_range=0.1).train()
    texts = [
        tokenizer.apply_chat_template(
            [*question.messages, {"role": "assistant", "content": f"{why}\n#### {number}"}], tokenize=False
        )
        for question in QUESTIONS
        for why in ("the fox", "the quick dog")
        for number in (4, 5)
    ]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(80):
        loss = model(**batch, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


class Trainer:
    """Moves every weight, and remembers what it was given."""

    def __init__(self) -> None:
        self.calls: list[tuple[Path, list[dict]]] = []

    def __call__(self, model: Path, pairs: Path, trained: Path) -> bool:
        self.calls.append((model, [json.loads(line) for line in pairs.read_text().splitlines()]))
        loaded = AutoModelForCausalLM.from_pretrained(model)
        with torch.no_grad():
            for parameter in loaded.parameters():
                parameter.add_(0.001)
        loaded.save_pretrained(trained)
        AutoTokenizer.from_pretrained(model).save_pretrained(trained)
        return True


def test_two_rounds(student: Path, tmp_path: Path) -> None:
    train, lines = Trainer(), []
    taught = run_rounds(student, tmp_path, QUESTIONS, ROUNDS, train, seed=0, say=lines.append)
    assert taught.is_finished
    assert taught.model == tmp_path / "round-2" / "model"
    assert [model for model, _ in train.calls] == [student, tmp_path / "round-1" / "model"]
    for (_, rows), round_ in zip(train.calls, taught.rounds, strict=True):
        assert round_.questions == 3
        assert 0 < round_.right < round_.answers <= 24
        assert len(rows) == 2 * round_.pairs > 0
        found = [split_answer(row["messages"][-1]["content"]) for row in rows]
        assert all(worked is not None for worked in found)
        assert [is_right(worked.answer, "4", "number") for worked in found if worked] == [True, False] * round_.pairs
    assert lines[0].startswith("Round 1: 3 questions, ")
    assert not (tmp_path / "round-1" / "model").exists()
    before, after = (load_file(folder / "model.safetensors") for folder in (student, taught.model))
    for name, weight in before.items():  # twice 0.99 of 0.001
        assert (after[name] - weight).mean().item() == pytest.approx(0.00198, rel=0.05), name


def test_a_finished_run_does_nothing_again(student: Path, tmp_path: Path) -> None:
    first = run_rounds(student, tmp_path, QUESTIONS, ROUNDS, Trainer(), seed=0)
    train = Trainer()
    assert run_rounds(student, tmp_path, QUESTIONS, ROUNDS, train, seed=0) == first
    assert train.calls == []


def test_an_interruption_changes_nothing(student: Path, tmp_path: Path) -> None:
    once = ROUNDS.model_copy(update={"count": 1})
    whole = Trainer()
    run_rounds(student, tmp_path / "whole", QUESTIONS, once, whole, seed=5)
    stopped = run_rounds(student, tmp_path / "cut", QUESTIONS, once, lambda *_: False, seed=5)
    assert not stopped.is_finished
    place = tmp_path / "cut" / "round-1"
    for name in ("sampled.json", "pairs.jsonl"):
        (place / name).unlink()
    lines = (place / "answers.jsonl").read_bytes().splitlines(keepends=True)
    (place / "answers.jsonl").write_bytes(lines[0] + lines[1][:20])  # killed while it wrote the second
    resumed = Trainer()
    assert run_rounds(student, tmp_path / "cut", QUESTIONS, once, resumed, seed=5).is_finished
    assert [rows for _, rows in resumed.calls] == [rows for _, rows in whole.calls]


def test_without_pairs_the_model_stays(student: Path, tmp_path: Path) -> None:
    train, lines = Trainer(), []
    wrong = [Question(question.messages, "77", "number", is_apart=False) for question in QUESTIONS]
    taught = run_rounds(student, tmp_path, wrong, ROUNDS, train, seed=0, say=lines.append)
    assert (taught.model, taught.is_finished, train.calls) == (student, True, [])
    assert lines[0].endswith("nothing to learn from, so the model stays as it is")


def test_other_questions_are_refused(student: Path, tmp_path: Path) -> None:
    run_rounds(student, tmp_path, QUESTIONS, ROUNDS, lambda *_: False, seed=0)
    with pytest.raises(TrainingError, match="round-1 was made with other questions or other settings"):
        run_rounds(student, tmp_path, QUESTIONS[:1], ROUNDS, Trainer(), seed=0)
    with pytest.raises(TrainingError, match="no question whose answer the checker 'number' can read"):
        run_rounds(student, tmp_path, [], ROUNDS, Trainer(), seed=0)


def test_a_model_that_cannot_be_opened_is_one_line(student: Path, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="nowhere") as caught:
        run_rounds(tmp_path / "nowhere", tmp_path / "out", QUESTIONS, ROUNDS, Trainer(), seed=0)
    assert "\n" not in str(caught.value)
