"""A teacher behind ``tapster serve`` answers questions of GSM8K once; a small student learns the text."""

import gzip
import json
import math
from pathlib import Path

import pytest
from circle_results import ask, card, few_layers, settings
from circle_runs import records, train_small

STEPS, NUM_QUESTIONS = 6, 18
TINY = {
    "teacher.max_tokens": 224,
    "stages.distil.steps": STEPS,
    "stages.distil.batch_size": 4,
    "stages.distil.sequence_length": 320,
    "stages.distil.optimizer.lr": 2e-4,  # of a student that has lost most of its layers
    "stages.distil.objective.cwce.weight": [[2, 0.7], [STEPS, 1.0]],
    "stages.distil.objective.tea.weight": [[0, 1.0], [STEPS, 0.1]],
}


@pytest.fixture(scope="module")
def run(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dante")
    asked, held_out = short_questions(shared_data / "gsm8k" / "train.jsonl.gz", folder)
    student = few_layers(folder / "small", 6)
    changes = TINY | {"student.model": student, "stages.distil.data.eval": json.dumps([str(held_out)])}
    return train_small("dante", folder / "run", "--data", asked, *settings(changes))


def short_questions(data: Path, folder: Path) -> tuple[Path, Path]:
    """Of which the demo model says little, so that it comes to an end: twelve to learn from, and six."""
    with gzip.open(data, "rt", encoding="utf-8") as file:
        shortest = sorted(file, key=lambda line: len(json.loads(line)["question"]))[:NUM_QUESTIONS]
    parts = folder / "asked.jsonl", folder / "held-out.jsonl"
    for part, chosen in zip(parts, (shortest[:12], shortest[12:]), strict=True):
        part.write_text("".join(chosen), encoding="utf-8")
    return parts


def test_the_teacher_s_answers_are_kept_with_what_is_known_of_them(run: Path) -> None:
    files = sorted((run / "teacher").glob("answers-*.jsonl"))
    answers = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(answers) == NUM_QUESTIONS
    whole = [answer for answer in answers if answer["finish_reason"] == "stop"]
    assert len(whole) >= 4
    for answer in whole:
        assert answer["teacher_text"].strip()
        assert 0.0 < answer["output_entropy"] < math.log(49152)


def test_the_student_learns_and_the_report_compares_it_with_plain_fine_tuning(run: Path) -> None:
    before, *_, after = records(run, "distil", "eval")
    plain = records(run, "distil-sft", "eval")[-1]
    assert (after["step"], plain["step"]) == (STEPS, STEPS)
    ours, other = after["terms/cross_entropy"], plain["terms/cross_entropy"]
    assert ours < before["terms/cross_entropy"] - 0.1
    assert other < before["terms/cross_entropy"] - 0.1
    said = next(line for line in card(run).splitlines() if line.startswith("After `distil`"))
    assert f"{ours:.4f} nats a token, of plain fine-tuning {other:.4f}" in said
    assert ("lower" in said, "does not fall below" in said) == (ours < other, ours > other)


def test_the_anchor_holds_the_embeddings(run: Path) -> None:
    after, plain = records(run, "distil", "eval")[-1], records(run, "distil-sft", "eval")[-1]
    assert 0.0 < after["terms/tea"] < plain["terms/tea"]


async def test_the_result_answers(run: Path) -> None:
    answer = await ask(run / "model", "What is 2 + 3?", max_tokens=8)
    assert answer.content
    assert answer.usage.completion_tokens <= 8
