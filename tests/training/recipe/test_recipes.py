"""The five recipes: what their cards say, and that both forms hold together."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapster.training.data.sources import sample_names
from tapster.training.objectives.schedules import value_at
from tapster.training.recipe.find import FOLDER, recipe_names
from tapster.training.recipe.read import read_recipe
from tapster.training.recipe.resolved import to_toml
from tapster.training.recipe.schema import Objective, Recipe, Stage, Student

FORMS = [(name, small) for name in recipe_names() for small in (False, True)]


def objective(stage: Stage, term: str) -> Objective:
    return next(one for one in stage.objective if one.term == term)


def test_there_are_the_five() -> None:
    assert recipe_names() == ["afm-kda", "dante", "kai", "kodalite", "memphis"]


@pytest.mark.parametrize(("name", "small"), FORMS)
def test_what_is_written_reads_back(name: str, small: bool, tmp_path: Path) -> None:
    recipe = read_recipe(name, small=small)
    path = tmp_path / "recipe.toml"
    path.write_text(to_toml(recipe), encoding="utf-8")
    again = read_recipe(str(path))
    assert again.model_dump(exclude={"small"}) == recipe.model_dump(exclude={"small"})
    assert to_toml(again) == to_toml(recipe)


@pytest.mark.parametrize("name", recipe_names())
def test_the_small_form_needs_no_network(name: str) -> None:
    recipe = read_recipe(name, small=True)
    assert recipe.student.model in ("demo", None)
    assert recipe.student.tokenizer is None or recipe.student.tokenizer.startswith("train:")
    assert recipe.teacher is None or (recipe.teacher.model in ("demo", "student") and not recipe.teacher.endpoint)
    known = [f"sample:{name}" for name in sample_names()]
    assert all(source in known for stage in recipe.stages for source in stage.data.train)
    assert not any(stage.data.eval for stage in recipe.stages)


@pytest.mark.parametrize("name", recipe_names())
def test_the_small_form_says_what_it_is(name: str) -> None:
    full, small = read_recipe(name), read_recipe(name, small=True)
    assert small.title != full.title
    assert small.description != full.description


@pytest.mark.parametrize("name", recipe_names())
def test_the_full_form_reads_the_hub(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.name == name
    assert all(source.startswith("hub:") for stage in recipe.stages for source in stage.data.train)
    assert recipe.card
    assert tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))["small"]


def test_dante_has_its_card_s_values() -> None:
    recipe = read_recipe("dante")
    [stage] = recipe.stages
    assert (stage.steps, stage.batch_size, stage.sequence_length, stage.seed) == (2000, 128, 4096, 42)
    assert (stage.optimizer.lr, stage.optimizer.betas, stage.optimizer.weight_decay) == (2e-5, (0.9, 0.95), 0.1)
    assert (stage.learning_rate.shape, stage.learning_rate.warmup_steps) == ("cosine", 200)
    assert (stage.data.curriculum.order, stage.data.curriculum.by) == ("strict", "output_entropy")
    ce, tea = objective(stage, "cwce").weight, objective(stage, "tea").weight
    for step in (0, 200, 1100, 1999, 2000):
        assert value_at(ce, step) == pytest.approx(0.70 + 0.30 * max(0, step - 200) / 1800, abs=1e-12)
        assert value_at(tea, step) == pytest.approx(1 - 0.9 * step / 2000, abs=1e-12)
    assert recipe.teacher
    assert (recipe.teacher.max_tokens, recipe.teacher.temperature, recipe.teacher.max_rows) == (512, 0.0, 44000)


def test_kodalite_has_its_card_s_values() -> None:
    recipe = read_recipe("kodalite")
    pretrain, chat = recipe.stages
    scratch = recipe.student.scratch
    assert scratch
    assert (scratch["num_hidden_layers"], scratch["hidden_size"], scratch["intermediate_size"]) == (24, 2048, 5504)
    assert (scratch["num_attention_heads"], scratch["num_key_value_heads"], scratch["head_dim"]) == (32, 8, 64)
    assert recipe.student.stop_strings == ["<|end|>"]
    assert pretrain.steps
    assert pretrain.steps * pretrain.batch_size * pretrain.sequence_length == pytest.approx(1.64e9, rel=1e-3)
    assert chat.lora
    assert (chat.lora.rank, chat.lora.alpha) == (16, 32)


def test_memphis_has_its_card_s_values() -> None:
    sft, rank = read_recipe("memphis").stages
    for stage, lr, length, warmup in ((sft, 1e-5, 4096, 0.2), (rank, 5e-7, 1024, 0.1)):
        assert (stage.optimizer.name, stage.optimizer.norm_loss, stage.optimizer.lr) == ("adalite", 0.01, lr)
        assert (stage.batch_size, stage.sequence_length) == (128, length)
        assert (stage.learning_rate.shape, stage.learning_rate.warmup_ratio) == ("cosine", warmup)
        assert stage.neftune
        assert stage.neftune.alpha == 10
        assert stage.frozen == ["embed_tokens", "lm_head"]
    assert (sft.epochs, rank.epochs) == (2, 1)
    assert objective(sft, "mixce").model_extra == {"eta": 0.75}
    assert objective(rank, "pro").weight == 0.25
    assert rank.rounds
    found = rank.rounds
    assert (found.count, found.samples, found.temperature, found.top_p, found.max_tokens) == (3, 8, 0.5, 0.8, 512)
    assert (found.merge, found.weight_of_new) == ("slerp", 0.99)


def test_afm_kda_has_its_article_s_values() -> None:
    recipe = read_recipe("afm-kda")
    align, distil = recipe.stages
    assert recipe.student.kda
    assert recipe.student.kda.layers == "all"
    assert [one.term for one in align.objective] == ["cross_entropy", "forward_kl", "hidden_cosine"]
    assert [one.weight for one in align.objective] == [0.2, 0.2, 0.6]
    assert objective(align, "forward_kl").model_extra == {"temperature": 2.0}
    assert (align.optimizer.lr, align.max_grad_norm, align.learning_rate.warmup_ratio) == (1e-3, 0.5, 0.025)
    assert (align.sequence_length, distil.sequence_length, distil.optimizer.lr) == (2048, 32768, 1e-5)
    for stage, tokens in ((align, 3e8), (distil, 1e9)):
        assert stage.steps
        assert stage.steps * stage.batch_size * stage.sequence_length == pytest.approx(tokens, rel=1e-3)
    assert not distil.frozen


def test_kai_asks_the_student_as_it_was() -> None:
    recipe = read_recipe("kai")
    assert recipe.teacher
    assert (recipe.teacher.kind, recipe.teacher.model) == ("online", "student")
    assert [one.term for one in recipe.stages[0].objective] == ["cross_entropy", "ads"]


TEXT = st.text(st.characters(exclude_categories=("Cs",)))
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(scratch=st.dictionaries(TEXT, VALUES, max_size=4), stops=st.lists(TEXT, max_size=3), lr=st.floats(1e-12, 10.0))
def test_any_values_read_back(scratch: dict[str, object], stops: list[str], lr: float) -> None:
    stage = Stage.model_validate({"name": "a", "steps": 1, "optimizer": {"lr": lr}, "objective": [{"term": "tea"}]})
    recipe = Recipe(name="a", title="\x7f\n\"'\\", student=Student(scratch=scratch, stop_strings=stops), stages=[stage])
    read = tomllib.loads(to_toml(recipe))
    assert read["student"]["scratch"] == scratch
    assert read["student"]["stop_strings"] == stops
    assert read["title"] == recipe.title
    assert read["stages"][0]["optimizer"]["lr"] == lr
