"""Rows of known data sets, and those of no use."""

import pytest

from tapster.training.data.examples import Document, Unusable, answer_of, question_of
from tapster.training.data.formats import converter, detect_format
from tapster.training.data.oasst import grow_trees

USER, BOT = "user", "assistant"
ROWS = {
    "text": ({"text": "Once.", "score": 2}, None),
    "chat": ({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}, ("Hi", "Yo")),
    "completion": ({"prompt": "Hi", "completion": "Yo"}, ("Hi", "Yo")),
    "dolly": ({"instruction": "Sum up", "context": "A text", "response": "It"}, ("Sum up\n\nA text", "It")),
    "tinycot": ({"prompt": "2+2?", "rationale": "Count.", "target": "4", "source": "x"}, ("2+2?", "4")),
    "gsm8k": ({"question": "2*3?", "answer": "It is <<2*3=6>>6.\n#### 6"}, ("2*3?", "It is 6.\n#### 6")),
}


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_each_kind(name: str) -> None:
    row, expected = ROWS[name]
    assert detect_format(row) == name
    example = converter(name)(row)
    if expected is None:
        assert example == Document("Once.", {"score": 2.0})
    else:
        assert not isinstance(example, Document)
        assert [(turn["role"], turn["content"]) for turn in example.messages] == list(
            zip((USER, BOT), expected, strict=True)
        )


def test_sharegpt_and_a_question_without_an_answer() -> None:
    turns = [{"from": "system", "value": "S"}, {"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
    example = converter("chat")({"conversations": [*turns, {"from": "human", "value": "Thanks"}]})
    assert not isinstance(example, Document)
    assert [turn["role"] for turn in example.messages] == ["system", "user", "assistant"]
    assert [turn["content"] for turn in question_of(example.messages)] == ["S", "Q"]
    assert converter("chat")({"system": "S", "conversations": turns[1:]}) == converter("chat")({"conversations": turns})
    assert converter("chat")({"system": "T", "conversations": turns}) == converter("chat")({"conversations": turns})
    assert answer_of(example.messages)["content"] == "A"


def test_gsm8k_as_rationale_and_answer() -> None:
    example = converter("tinycot")(ROWS["gsm8k"][0])
    assert not isinstance(example, Document)
    assert example.messages[-1] == {"role": "assistant", "content": "6", "reasoning_content": "It is 6."}


def test_a_row_of_the_text_cache_brings_its_numbers() -> None:
    row = {"prompt": "Q", "teacher_text": "A", "output_entropy": 0.5, "self_consistency": None, "finish_reason": "stop"}
    example = converter(detect_format(row))(row)
    assert example.columns == {"output_entropy": 0.5}
    with pytest.raises(Unusable, match="cut off"):
        converter("completion")({**row, "finish_reason": "length"})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": []}, "it has no messages"),
        ({"messages": [{"role": "user", "content": "Hi"}]}, "no answer of an assistant"),
        ({"messages": [{"role": "wizard", "content": "Hi"}]}, "a message has the role 'wizard'"),
        ({"messages": [{"role": "user", "content": None}, {"role": "assistant", "content": "x"}]}, "no text"),
        (
            {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "  "}]},
            "assistant has no text",
        ),
        ({"messages": ["Hi"]}, "no object"),
        ({"messages": [{"role": "assistant", "content": [{"type": "text", "text": 5}]}]}, "no text"),
        ({"messages": [{"role": "assistant", "content": "x", "thinking": {"a": 1}}]}, "thinking is no text"),
        ({"messages": [{"role": "assistant", "content": "x"}], "system": {"a": 1}}, "system is no text"),
        ({"messages": [{"role": "assistant", "content": "a\ud800b"}]}, "half of a surrogate pair"),
        ({"text": "a\ud800b"}, "half of a surrogate pair"),
        ({"prompt": "2+2?", "rationale": 5, "target": "4"}, "rationale is no text"),
        ({"instruction": "Sum up", "context": {"title": "A"}, "response": "It"}, "context or input is no text"),
        ({"question": "2+2?", "answer": ""}, "it has no answer of an assistant"),
        ({"prompt": "Hi", "teacher_text": "Yo", "messages": 5, "finish_reason": "length"}, "cut off"),
        ({"prompt": {"role": "prompter", "text": "Hi", "replies": 5}}, "nobody answered"),
        ({"prompt": {"role": "prompter", "text": "Hi", "replies": [{"rank": "x"}]}}, "a reply has the rank 'x'"),
    ],
)
def test_what_is_of_no_use_says_why(row: dict, reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        converter("auto")(row)


def test_a_number_of_any_size_stands_in_no_row_s_way() -> None:
    assert converter("auto")({"text": "Once.", "id": 10**400}) == Document("Once.", {"id": 10**400})


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        ({"prompt": "Hi"}, ["Hi"]),
        ({"prompt": [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "Hi"}]}, ["Be kind", "Hi"]),
        ({"question": "2*3?", "answer": None}, ["2*3?"]),
        ({"instruction": "Sum up", "input": "A text", "output": ""}, ["Sum up\n\nA text"]),
        ({"messages": [{"role": "user", "content": "Hi"}]}, ["Hi"]),
        ({"messages": [{"role": role, "content": role} for role in (USER, BOT, USER)]}, [USER, BOT, USER]),
    ],
)
def test_a_question_is_enough_where_a_teacher_answers(row: dict, asked: list[str]) -> None:
    example = converter("auto", needs_answer=False)(row)
    assert not isinstance(example, Document)
    assert [turn["content"] for turn in example.messages] == asked
    if BOT not in asked:
        with pytest.raises(Unusable, match=r"no known format|no answer of an assistant"):
            converter("auto")(row)


def test_unknown_columns_are_an_error_with_the_way_out() -> None:
    with pytest.raises(Unusable, match="no known format has the columns post_body, post_title: rename them"):
        detect_format({"post_title": "a", "post_body": "b"})


def message(name: str, parent: str | None, role: str, rank: int | None = None, **more) -> dict:
    return {"message_id": name, "parent_id": parent, "role": role, "text": name, "rank": rank, **more}


def test_oasst_takes_the_best_ranked_answers() -> None:
    rows = [
        message("q", None, "prompter"),
        message("worse", "q", "assistant", 1),
        message("best", "q", "assistant", 0),
        message("gone", "q", "assistant", -1, deleted=True),
        message("more", "best", "prompter"),
        message("last", "more", "assistant", 0),
        message("thanks", "last", "prompter"),
        message("lonely", None, "prompter"),
    ]
    assert detect_format(rows[0]) == "oasst"
    trees = list(grow_trees(rows))
    convert = converter("oasst")
    example = convert(trees[0])
    assert not isinstance(example, Document)
    assert [turn["content"] for turn in example.messages] == ["q", "best", "more", "last"]
    assert example.columns == {}, "a rank in a tree is no rank of a row"
    assert list(grow_trees(trees)) == trees
    with pytest.raises(Unusable, match="nobody answered"):
        convert(trees[1])


def test_oasst_messages_that_answer_themselves_are_no_tree() -> None:
    rows = [message("q", None, "prompter"), message("q", "q", "assistant")]
    with pytest.raises(Unusable, match="in a circle"):
        converter("oasst")(next(grow_trees(rows)))
