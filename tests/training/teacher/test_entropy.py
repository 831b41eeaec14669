"""Entropies, agreement and difficulty, against values computed by hand."""

import math

import pytest

from tapster.training.teacher.consistency import chrf, difficulty, final_answer, marked_answer, self_consistency
from tapster.training.teacher.entropy import answer_entropy, entropy_of, token_entropy


def test_the_bounds_hold_the_entropy_of_the_whole() -> None:
    probs = [0.5, 0.2, 0.1, 0.1, 0.05, 0.05]
    true = -sum(p * math.log(p) for p in probs)
    for k in range(1, 6):
        lower, upper = token_entropy([math.log(p) for p in probs[:k]], 6)
        assert upper is not None
        assert lower <= true + 1e-12
        assert upper >= true - 1e-12
    assert token_entropy([math.log(p) for p in probs], 6) == pytest.approx((true, true))
    assert token_entropy([math.log(0.5)], 3)[0] == pytest.approx(math.log(2))  # the rest on one token
    assert token_entropy([math.log(0.5)], 3)[1] == pytest.approx(math.log(2) + 0.5 * math.log(2))
    assert token_entropy([0.0, -9999.0], 3) == (0.0, 0.0)


def test_the_estimator_says_what_it_is() -> None:
    half = {"logprob": math.log(0.5)}
    top = entropy_of(
        [{**half, "top_logprobs": [half, half]}, {"logprob": 0.0, "top_logprobs": [{"logprob": 0.0}]}], temperature=0
    )
    assert top
    assert top["output_entropy"] == pytest.approx(math.log(2) / 2)
    assert (top["entropy_estimator"], top["top_k"], top["entropy_unit"]) == ("top-k", 2, "nats")
    plain = entropy_of([half, {"logprob": -9999.0}][:1], temperature=1.0)
    assert plain
    assert (plain["output_entropy"], plain["entropy_estimator"]) == (pytest.approx(math.log(2)), "sampled")
    greedy = entropy_of([half], temperature=0.0)
    assert greedy
    assert greedy["entropy_estimator"] == "surprisal"
    assert entropy_of(None, temperature=0) is None
    assert answer_entropy(["1", "1", "2", "2"])["output_entropy"] == pytest.approx(math.log(2))
    for nonsense in (math.nan, 0.5):
        with pytest.raises(ValueError, match="no log-probability"):
            entropy_of([{"logprob": nonsense}], temperature=0)


@pytest.mark.parametrize(
    ("text", "marked", "final"),
    [
        ("so 3 + 4 = 7\n#### 7", "7", "7"),
        ("the answer is $1,234.50.", "1234.5", "1234.5"),
        (r"thus \boxed{-12}", "-12", "-12"),
        ("Answer: (B)", "b", "b"),
        ("it makes 5, then 6.", None, "6"),
        ("no idea", None, None),
    ],
)
def test_final_answers(text: str, marked: str | None, final: str | None) -> None:
    assert (marked_answer(text), final_answer(text)) == (marked, final)


def test_agreement_and_difficulty() -> None:
    assert self_consistency(["#### 4", "the answer is 4.0", "#### 5", "4"]) == 0.75
    assert self_consistency(["one text", "one text"]) == 1.0
    assert self_consistency(["abc", "xyz"]) == 0.0
    assert self_consistency(["only one"]) is None
    assert 0 < chrf("the cat sat", "the cat ran") < 1
    assert difficulty(0.1, 0.9, ["#### 4", "#### 5"], "… #### 4") == 0.5  # half of the answers are wrong
    assert difficulty(math.log(2), 0.5, ["text"], None) == pytest.approx(0.5)
    assert difficulty(0.0, None, ["text"], "no marked answer") == 0.0
    assert difficulty(None, None, ["text"], None) is None
