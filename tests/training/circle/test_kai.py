"""Fine-tuning under a bound on the entropy at difficult tokens, beside plain fine-tuning."""

from pathlib import Path

import pytest
from circle_results import ask, card, settings
from circle_runs import records, train_small

STEPS = 8
TINY = {
    "stages.sharpen.steps": STEPS,
    "stages.sharpen.batch_size": 4,
    "stages.sharpen.sequence_length": 96,
    "stages.sharpen.data.eval_rows": 8,
    "stages.sharpen.data.max_rows": 160,
    "stages.sharpen.optimizer.lr": 3e-5,
    "stages.sharpen.objective.ads.anneal_steps": 2,
    "stages.sharpen.objective.ads.dual_every": 2,
}
HARD, EASY = "state/ads/entropy_hard", "state/ads/entropy_easy"


@pytest.fixture(scope="module")
def run(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = shared_data / "gsm8k" / "train.jsonl.gz"
    return train_small("kai", tmp_path_factory.mktemp("kai") / "run", "--data", data, *settings(TINY))


def test_entropy_falls_on_the_masked_tokens_only(run: Path) -> None:
    before, *_, after = records(run, "sharpen", "eval")
    plain = records(run, "sharpen-sft", "eval")[-1]
    assert (after["step"], plain["step"]) == (STEPS, STEPS)
    assert before[HARD] > 2 * before[EASY]
    assert after[HARD] < 0.95 * min(plain[HARD], before[HARD])
    assert after[EASY] > 0.97 * before[EASY]
    assert plain[HARD] - after[HARD] > 3 * abs(plain[EASY] - after[EASY])


def test_the_price_of_the_constraint_adapts(run: Path) -> None:
    steps = records(run, "sharpen", "train")
    assert steps[0]["state/ads/coefficient"] == 0.0
    assert steps[-1]["state/ads/coefficient"] > 0.0
    assert steps[-1]["state/ads/lambda"] > 0.0


def test_the_card_shows_the_entropies_of_both(run: Path) -> None:
    text = card(run)
    assert "| entropy where the reference was unsure (nats a token) | " in text
    assert "| entropy elsewhere (nats a token) | " in text
    assert "After `sharpen`: held-out cross-entropy " in text


async def test_the_result_answers(run: Path) -> None:
    assert (await ask(run / "model", "What is 2 + 3?", max_tokens=8)).content
