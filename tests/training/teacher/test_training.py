"""Whole runs with a teacher: the loss of each falls, and the run says what its teacher was."""

import json
from pathlib import Path
from typing import Any

import pytest
from loop_runs import Ear, questions, recipe, records, run
from teacher_models import other_tokenizer, saved, tiny_model
from teacher_server import teacher_server

from tapster.runtime.errors import ConfigError
from tapster.training.recipe.schema import Recipe


def taught(data: Path, teacher: dict[str, Any], terms: list[dict[str, Any]], /, **stage: Any) -> Recipe:
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


def test_answers_without_what_a_stage_reads_are_left_out(tmp_path: Path) -> None:
    data, ear = questions(tmp_path / "data.jsonl"), Ear()
    with teacher_server(choice=lambda number: {"logprobs": None} if number == 5 else {}) as server:
        teacher = {"kind": "text-cache", "endpoint": server.url}
        run(taught(data, teacher, [{"term": "cwce"}], steps=1), tmp_path / "out", display=ear)
        plain = taught(data, teacher | {"cache": str(tmp_path / "out/teacher")}, [{"term": "cross_entropy"}], steps=1)
        assert any("for they have no output_entropy" in line for line in ear.heard)
        ear.heard.clear()
        run(plain, tmp_path / "plain", display=ear)
        assert not any("left out" in line for line in ear.heard)


@pytest.mark.parametrize("where", ["train", "eval"])
def test_what_documents_cannot_have_is_told_before_a_teacher_is_asked(tmp_path: Path, where: str) -> None:
    data, documents = questions(tmp_path / "data.jsonl"), tmp_path / "documents.jsonl"
    documents.write_text("".join(json.dumps({"text": f"document {n}"}) + "\n" for n in range(7)))
    sources = {"train": [str(data)], "eval": [str(data)]}
    sources[where].append(str(documents))
    with teacher_server() as server:
        one = taught(data, {"kind": "text-cache", "endpoint": server.url}, [{"term": "cwce"}], data=sources)
        with pytest.raises(ConfigError, match=r"^output_entropy is known of a .* and 7 of the 47 rows are documents"):
            run(one, tmp_path / "out")
        assert not server.times


def test_terms_that_compare_tokens_refuse_it(tmp_path: Path, foreigner: Path) -> None:
    data = questions(tmp_path / "data.jsonl")
    terms = [{"term": "uld"}, {"term": "forward_kl"}]
    with pytest.raises(ConfigError, match="another tokenizer"):
        run(taught(data, {"kind": "online", "model": str(foreigner)}, terms), tmp_path / "out")
