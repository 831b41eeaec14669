"""Fine-tuning with Adalite, then a round of self-teaching: sampled, checked, ranked, merged."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from circle_results import ask, card, settings
from circle_runs import records, train_small
from safetensors.torch import load_file

from tapster.training.data.sources import SAMPLES
from tapster.training.rounds.answers import is_right, split_answer

TINY = {
    "stages.sft.steps": 10,
    "stages.sft.batch_size": 4,
    "stages.sft.data.eval_rows": 8,
    "stages.rank.rounds.max_questions": 12,
    "stages.rank.rounds.max_tokens": 48,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_small("memphis", tmp_path_factory.mktemp("memphis") / "run", *settings(TINY))


@pytest.fixture(scope="module")
def a_round(run: Path) -> Path:
    return run / "stages" / "02-rank" / "round-1"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_fine_tuning_learns_with_adalite(run: Path) -> None:
    before, after = records(run, "sft", "eval")
    assert after["terms/cross_entropy"] < 0.6 * before["terms/cross_entropy"]


def test_answers_are_checked_and_paired(a_round: Path) -> None:
    counts = json.loads((a_round / "round.json").read_text())
    answers = [answer for line in lines(a_round / "answers.jsonl") for answer in line["answers"]]
    assert counts["questions"] == TINY["stages.rank.rounds.max_questions"]
    assert counts["answers"] == len(answers)
    assert all(answer["rationale"] and answer["answer"] for answer in answers)
    assert 0 < counts["right"] < counts["answers"]
    rows = lines(a_round / "pairs.jsonl")
    assert len(rows) == 2 * counts["pairs"] > 0
    assert [row["rank"] for row in rows] == [0, 1] * counts["pairs"]
    gold = {line["question"]: line["answer"].rpartition("#### ")[2] for line in lines(SAMPLES / "sums.jsonl")}
    for row in rows:
        question, answer = row["messages"][0]["content"], row["messages"][-1]
        assert answer["reasoning_content"]
        assert is_right(answer["content"], gold[question], "number") == (row["rank"] == 0)


def test_right_answers_are_ranked_above_wrong_ones_and_the_weights_move(run: Path) -> None:
    steps = records(run, "rank-round-1", "train")
    assert steps
    assert all(step["terms/pro"] > 0.0 and step["weights/pro"] == 0.25 for step in steps)
    folders = run / "stages" / "01-sft" / "model", run / "model"
    start, result = (load_file(folder / "model.safetensors") for folder in folders)
    moved = {name for name, weight in start.items() if not torch.equal(weight.bfloat16(), result[name].bfloat16())}
    assert any("mlp" in name for name in moved)
    assert not any("embed_tokens" in name or "lm_head" in name for name in moved)


def test_the_card_tells_of_the_round(run: Path, a_round: Path) -> None:
    counts = json.loads((a_round / "round.json").read_text())
    row = " | ".join(str(counts[key]) for key in ("number", "questions", "answers", "right", "pairs"))
    assert f"| {row} |" in card(run)


async def test_the_result_answers_with_a_rationale(run: Path) -> None:
    answer = await ask(run / "model", "Ana has 3 pens and gets 2 more. How many pens does Ana have now?", 48)
    assert answer.content
    assert split_answer(answer.content, answer.reasoning)
