"""Plain fine-tuning beside a stage: the very run that a recipe of cross-entropy alone would be, and honest words."""

import json
from pathlib import Path
from typing import Any

import pytest
from loop_runs import STAGE, losses, questions, recipe, run

from tapster.training.recipe.schema import Objective, Stage

OWN: dict[str, Any] = {
    "steps": 4,
    "objective": [{"term": "mixce", "eta": 0.5}, {"term": "tea", "weight": 0.5}],
    "data": {"curriculum": {"order": "strict", "by": "length"}},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return questions(tmp_path_factory.mktemp("data") / "sums.jsonl")


def own(data: Path, **more: Any) -> Any:
    chosen = {"train": [str(data)], "eval_rows": 4, **OWN["data"]}
    return recipe(data, {**OWN, "data": chosen, **more})


def test_it_is_the_run_of_cross_entropy_alone(data: Path, tmp_path: Path) -> None:
    both = run(own(data, baseline="sft"), tmp_path / "both")
    alone = run(own(data), tmp_path / "alone")
    plain = run(recipe(data, {"steps": 4, "objective": [{"term": "cross_entropy"}]}), tmp_path / "plain")
    result = both.stages["01-sft"]
    assert result["after"] == alone.stages["01-sft"]["after"]
    expected = plain.stages["01-sft"]["after"]["loss"]
    assert result["plain"]["terms/cross_entropy"] == pytest.approx(expected, abs=1e-6)
    assert result["after"]["terms/cross_entropy"] != result["plain"]["terms/cross_entropy"]
    assert losses(tmp_path / "both")[("sft-sft", 4)]["terms/tea"] > 0.0
    assert not (tmp_path / "both" / "stages" / "01-sft" / "baseline").exists()
    assert "plain" not in alone.stages["01-sft"]


def test_the_card_sets_both_side_by_side(data: Path, tmp_path: Path) -> None:
    run(own(data, baseline="sft"), tmp_path)
    result = json.loads((tmp_path / "state.json").read_text())["stages"]["01-sft"]["result"]
    ours, plain = (result[name]["terms/cross_entropy"] for name in ("after", "plain"))
    text = (tmp_path / "model" / "README.md").read_text()
    assert "| sft, 4 steps | before | after | after plain fine-tuning |" in text
    said = next(line for line in text.splitlines() if line.startswith("After `sft`"))
    assert f"held-out cross-entropy {ours:.4f} nats a token, of plain fine-tuning {plain:.4f}" in said
    assert said.endswith("lower." if ours < plain else "does not fall below.")
    assert "sft-sft" not in text


def test_an_interrupted_baseline_goes_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tapster.training.loop import baseline

    chosen = own(data, baseline="sft")
    whole = run(chosen, tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(baseline, "plain_stage", _stopped)
        with pytest.raises(KeyboardInterrupt):
            run(chosen, tmp_path / "cut")
    again = run(chosen, tmp_path / "cut")
    assert again.stages["01-sft"]["plain"] == whole.stages["01-sft"]["plain"]
    assert again.stages["01-sft"]["after"] == whole.stages["01-sft"]["after"]


def _stopped(_stage: Stage) -> Stage:
    raise KeyboardInterrupt


def test_of_cross_entropy_nothing_but_the_order_is_another() -> None:
    from tapster.training.loop.baseline import plain_stage

    stage = Stage.model_validate(STAGE | {"baseline": "sft", "neftune": {"alpha": 5.0}})
    plain = plain_stage(stage)
    assert plain.objective == [Objective(term="cross_entropy"), Objective(term="mixce", weight=0.0)]
    same = ("steps", "batch_size", "seed", "optimizer", "learning_rate", "frozen", "sequence_length")
    assert all(getattr(plain, name) == getattr(stage, name) for name in same)
    assert (plain.baseline, plain.neftune) == (None, None)
