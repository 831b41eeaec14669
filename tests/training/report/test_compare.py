"""What is said of a stage beside plain fine-tuning, and only what was measured."""

from typing import Any

from tapster.training.report.compare import table, verdict

HARD, EASY = "state/ads/entropy_hard", "state/ads/entropy_easy"


def record(stage: str, step: int, loss: float, **more: Any) -> dict[str, Any]:
    return {"stage": stage, "step": step, "kind": "eval", "loss": loss, "terms/cross_entropy": loss, **more}


def test_a_lower_loss_is_said_and_so_is_a_higher_one() -> None:
    low, high = {"terms/cross_entropy": 0.9}, {"terms/cross_entropy": 1.0}
    text = "held-out cross-entropy 0.9000 nats a token, of plain fine-tuning 1.0000: 10.0% lower"
    assert verdict(low, high) == text
    assert verdict(high, low).endswith("11.1% higher, so it does not fall below")
    assert verdict(low, low).endswith(": the same")
    assert verdict({}, low) == verdict({"terms/cross_entropy": None}, low) == ""


def test_a_table_of_what_both_have() -> None:
    records = [
        record("a", 0, 2.0, **{"terms/ads": 0.0, HARD: 3.0, EASY: 0.5}),
        record("a", 8, 1.0, **{"terms/ads": 0.1, HARD: 1.5, EASY: 0.4}),
        record("a-sft", 0, 2.0, **{HARD: 3.0, EASY: 0.5}),
        record("a-sft", 8, 1.25, **{"terms/ads": 0.2, HARD: 2.5, EASY: 0.45}),
    ]
    lines = table("a", records).splitlines()
    assert lines[0] == "| a, 8 steps | before | after | after plain fine-tuning |"
    assert lines[2:5] == [
        "| cross-entropy (nats a token) | 2 | 1 | 1.25 |",
        "| entropy where the reference was unsure (nats a token) | 3 | 1.5 | 2.5 |",
        "| entropy elsewhere (nats a token) | 0.5 | 0.4 | 0.45 |",
    ]
    assert lines[-1].startswith("After `a`: held-out cross-entropy 1.0000")


def test_no_table_of_half_a_comparison() -> None:
    ours = [record("a", 0, 2.0), record("a", 8, 1.0)]
    assert table("a", ours) == ""
    assert table("a", [*ours, record("a-sft", 0, 2.0)]) == ""
