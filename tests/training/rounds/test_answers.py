"""What is read from an answer, and which pairs come of several."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from tapster.training.rounds.answers import Worked, is_right, read_exact, read_letter, read_number, split_answer
from tapster.training.rounds.pairs import pair_up, write_pairs
from tapster.training.rounds.questions import Question, fingerprint, questions_of


def worked(answer: str, rationale: str = "because") -> Worked:
    return Worked(rationale, answer, f"{rationale}\n{answer}")


@pytest.mark.parametrize(
    ("content", "reasoning", "expected"),
    [
        ("Two and two.\n### Answer:\n4\n", "", ("Two and two.", "4")),
        ("### Rationale:\nTwo and two.\n### Answer:\n4", "", ("Two and two.", "4")),
        ("She has 48/2 = 24.\n#### 72", "", ("She has 48/2 = 24.", "72")),
        ("Two and two.\n### Answer:\n- 4", "", ("Two and two.", "- 4")),
        ("So the answer is 7. But no: the answer is 8.", "", ("So the answer is 7. But no: the", "8.")),
        ("4", "Two and two.", ("Two and two.", "4")),
        ("Two and two\nmake\n4", "", ("Two and two\nmake", "4")),
        ("4", "", None),
        ("### Answer:\n4", "", None),
        ("Two and two.\n### Answer:\n", "", None),
        ("", "Two and two.", None),
    ],
)
def test_rationale_and_answer(content: str, reasoning: str, expected: tuple[str, str] | None) -> None:
    found = split_answer(content, reasoning)
    assert (found and (found.rationale, found.answer)) == expected


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("72", Fraction(72)),
        ("$1,234.50 in all", Fraction(2469, 2)),
        ("-3", Fraction(-3)),
        ("−3 degrees", Fraction(-3)),
        ("It is 0.5.", Fraction(1, 2)),
        (".5", Fraction(1, 2)),
        ("1/2 of it", Fraction(1, 2)),
        ("25%", Fraction(25)),
        ("3 + 4 = 7 apples", Fraction(7)),
        ("72 apples in 3 boxes", Fraction(72)),
        ("- 12", Fraction(12)),
        ("Both hold:\n- 12 apples\n- 5 pears", Fraction(12)),
        ("x = - 12", Fraction(-12)),
        ("-$5", Fraction(-5)),
        ("1 1/2", Fraction(3, 2)),
        ("- 2 3 / 4 cups", Fraction(11, 4)),
        ("-1 1/2", Fraction(-3, 2)),
        ("3 of 1/2", Fraction(3)),
        ("1/0", None),
        ("none", None),
        ("", None),
    ],
)
def test_numbers(text: str, number: Fraction | None) -> None:
    assert read_number(text) == number


@pytest.mark.parametrize(
    ("text", "letter"),
    [("B", "B"), ("(c)", "C"), ("d.", "D"), ("A square is B", "B"), ("A", "A"), ("I think (E)", "E"), ("none", None)],
)
def test_letters(text: str, letter: str | None) -> None:
    assert read_letter(text) == letter


def test_exact_words() -> None:
    assert read_exact("  The  Moon. ") == read_exact("the moon") == "the moon"
    assert read_exact(" . ") is None


def test_what_cannot_be_read_is_wrong() -> None:
    assert is_right("72.0", "72", "number")
    assert not is_right("seventy-two", "72", "number")
    assert not is_right("none", "none", "number")


def test_each_answer_is_in_one_pair() -> None:
    answers = [worked(text) for text in ("4", "5", "5", "4.0", "6", "4", "7")]
    pairs = pair_up(answers, "4", "number")
    assert [(right.answer, wrong.answer) for right, wrong in pairs] == [("4", "5"), ("4.0", "6")]
    assert pair_up([worked("4")], "4", "number") == []


def test_pairs_are_written_as_neighbours_in_random_order(tmp_path: Path) -> None:
    asked = [Question(({"role": "user", "content": f"{i}?"},), "4", "number", is_apart=i % 2 == 0) for i in range(20)]
    write_pairs(tmp_path / "pairs.jsonl", [(question, (worked("4"), worked("5"))) for question in asked], seed=1)
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert [(row["group"], row["rank"]) for row in rows] == [(group, rank) for group in range(20) for rank in (0, 1)]
    questions = [row["messages"][0]["content"] for row in rows]
    assert questions[::2] == questions[1::2] != sorted(questions[::2])
    apart = next(row["messages"][1] for row in rows if row["messages"][0]["content"] == "2?")
    assert apart == {"role": "assistant", "content": "4", "reasoning_content": "because"}
    whole = next(row["messages"][1] for row in rows if row["messages"][0]["content"] == "3?")
    assert whole == {"role": "assistant", "content": "because\n4"}


def test_questions_that_can_be_checked() -> None:
    def ask(question: str, **answer: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": question}, {"role": "assistant", **answer}]

    found, left_out = questions_of(
        [
            ask("a", content="12", reasoning_content="Six and six."),
            ask("b", content="Six and seven.\n#### 13"),
            ask("b", content="Six and seven.\n#### 13"),
            ask("c", content="Nobody knows."),
            ask("d", content="14"),
            ask("e", content="15"),
        ],
        "number",
        3,
    )
    assert [(question.messages[0]["content"], question.gold, question.is_apart) for question in found] == [
        ("a", "12", True),
        ("b", "13", False),
        ("d", "14", False),
    ]
    assert left_out == 1
    assert fingerprint(found) == fingerprint(list(found)) != fingerprint(found[:2])
    assert fingerprint([replace(found[0], checker="exact"), *found[1:]]) != fingerprint(found)


@pytest.mark.parametrize(
    ("gold", "checker"),
    [
        ("72", "number"),
        ("$1,234.50", "number"),
        ("18 apples", "number"),
        ("-3", "number"),
        ("25%", "number"),
        ("20 °C.", "number"),
        ("90km/h", "number"),
        ("$1.50 each.", "number"),
        ("B", "letter"),
        ("(c) the moon", "letter"),
        ("D. both of them", "letter"),
        ("yes", "exact"),
        ("The moon.", "exact"),
        ("2x+3", "exact"),
        ("2x", "exact"),
        ("5:30", "exact"),
        ("5 pm", "exact"),
        ("3-4", "exact"),
        ("3,4", "exact"),
        ("1e5", "exact"),
        ("10^6", "exact"),
        ("3 million", "exact"),
        ("12/25/2020", "exact"),
        ("2 of the 3 are left over", None),
        ("It is a metaphor, for nobody is a lion.", None),
        ("", None),
    ],
)
def test_the_right_answer_says_how_it_is_checked(gold: str, checker: str | None) -> None:
    conversation = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": gold, "reasoning_content": "because"},
    ]
    found, left_out = questions_of([conversation], "auto", None)
    assert [question.checker for question in found] == ([checker] if checker else [])
    assert left_out == (checker is None)
