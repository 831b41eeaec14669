"""What a pipeline says of its stages, and of what it will serve."""

from collections.abc import Callable

import pytest

from tapster.server.pipeline.report import stage_lines
from tapster.server.pipeline.run import Pipeline
from tapster.server.pipeline.serve import Serving
from tapster.training.recipe.read import read_recipe

BEFORE = {"loss": 0.292, "terms/cwce": 2.0, "terms/tea": 0.5}
AFTER = {"loss": 0.3694, "terms/cwce": 1.5, "terms/tea": 0.25}
STAGE = {"stage": "distil", "before": BEFORE, "after": AFTER}


def test_a_loss_whose_weights_change_is_told_term_by_term() -> None:
    scheduled = read_recipe("dante", small=True)
    assert stage_lines([STAGE], scheduled) == ["  distil: held-out cwce 2 -> 1.5, tea 0.5 -> 0.25"]
    fixed = [(f"stages.distil.objective.{term}.weight", "0.5") for term in ("cwce", "tea")]
    constant = read_recipe("dante", small=True, overrides=fixed)
    assert stage_lines([STAGE], constant) == ["  distil: held-out loss 0.292 -> 0.3694"]
    assert stage_lines([{"stage": "distil", "before": {}, "after": {}}], constant) == []


@pytest.mark.parametrize(
    ("targets", "served"),
    [
        (("mlx:4bit", "gguf:Q8_0"), "the smallest GGUF file that lost little"),
        (("mlx:4bit", "onnx:int4"), "mlx:4bit"),
        ((), "run/model"),
    ],
)
def test_the_plan_names_what_will_be_served(
    fresh: Callable[..., Pipeline], targets: tuple[str, ...], served: str
) -> None:
    job = fresh(("convert", str(list(targets)))).job
    assert Serving().verdict(job).about == served
