"""Whole runs with a teacher: the loss of each falls, and the run says what its teacher was."""

from pathlib import Path
from typing import Any

import pytest
from loop_runs import questions, recipe, records, run
from teacher_models import other_tokenizer, saved, tiny_model

from tapster.runtime.errors import ConfigError
from tapster.training.recipe.schema import Recipe


def taught(data: Path, teacher: dict[str, Any], terms: list[dict[str, Any]], **stage: Any) -> Recipe:
    """The tiny recipe with a teacher and other objectives."""
    plain = recipe(data, {"steps": 40, "objective": terms, "save_steps": 100, "optimizer": {"lr": 1e-2}, **stage})
    return Recipe.model_validate({**plain.model_dump(), "teacher": teacher})


@pytest.fixture(scope="module")
def foreigner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model with a tokenizer of its own."""
    folder = saved(tiny_model(vocab_size=402), tmp_path_factory.mktemp("foreigner"))
    other_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("term", [{"term": "uld"}, {"term": "alm", "temperature": 10.0}], ids=["uld", "alm"])
def test_a_student_learns_from_a_teacher_of_other_tokens(tmp_path: Path, foreigner: Path, term: dict[str, Any]) -> None:
    data = questions(tmp_path / "data.jsonl")
    teacher = {"kind": "online", "model": str(foreigner)}
    run(taught(data, teacher, [term]), tmp_path / "out")
    first, *_, last = records(tmp_path / "out", "eval")
    name = f"terms/{term['term']}"
    assert last[name] < 0.9 * first[name]


def test_terms_that_compare_tokens_refuse_it(tmp_path: Path, foreigner: Path) -> None:
    data = questions(tmp_path / "data.jsonl")
    terms = [{"term": "uld"}, {"term": "forward_kl"}]
    with pytest.raises(ConfigError, match="another tokenizer"):
        run(taught(data, {"kind": "online", "model": str(foreigner)}, terms), tmp_path / "out")
