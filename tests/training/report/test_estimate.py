"""The estimate against counts made by hand, and the sizes against real models."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_tokenizer import small_tokenizer
from transformers import AutoModelForCausalLM, LlamaConfig

from tapster.runtime.errors import ConfigError, ModelError
from tapster.training.recipe.read import read_recipe
from tapster.training.recipe.schema import Kda, Lora, Objective, Recipe, Stage
from tapster.training.report.estimate import EFFICIENCY, estimate, memory_bytes, steps_of
from tapster.training.report.rate import matmul_flop_s
from tapster.training.report.sizes import kda_shapes, model_sizes, student_sizes

D, LAYERS, VOCABULARY, INNER = 32, 2, 100, 64
CONFIG = LlamaConfig(
    hidden_size=D,
    num_hidden_layers=LAYERS,
    vocab_size=VOCABULARY,
    intermediate_size=INNER,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=False,
)
IN_LAYERS = LAYERS * (D * D * 3 + 3 * D * INNER)
"""q and o are D by D, k and v half of it; three matrices of the MLP."""
NORMS = (2 * LAYERS + 1) * D


def never(spec: str) -> Path:
    raise AssertionError(f"nothing is to be fetched, and {spec} was")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    CONFIG.save_pretrained(path)
    return path


@pytest.fixture
def recipe() -> Recipe:
    sharpen = read_recipe("kai", small=True).stages[0]
    stage = sharpen.model_copy(
        update={"micro_batch_size": 2, "batch_size": 4, "sequence_length": 8, "steps": 10, "baseline": None}
    )
    return read_recipe("kai", small=True).model_copy(update={"stages": [stage]})


def test_parameters_are_counted(folder: Path) -> None:
    sizes = model_sizes("x", lambda _: folder)
    real = AutoModelForCausalLM.from_config(CONFIG)
    assert sizes.parameters == sum(one.numel() for one in real.parameters()) == 2 * D * VOCABULARY + IN_LAYERS + NORMS
    assert sizes.computing == D * VOCABULARY + IN_LAYERS + NORMS


def test_kodalite_has_the_parameters_of_its_card() -> None:
    gpt2 = ("student.tokenizer", "train:50257")
    recipe = read_recipe("kodalite", overrides=[gpt2])
    assert student_sizes(recipe.student, never).parameters == pytest.approx(1.27e9, rel=0.002)


def test_another_model_s_tokenizer_has_its_own_size(tmp_path: Path) -> None:
    small_tokenizer().save_pretrained(tmp_path)
    recipe = read_recipe("kodalite", small=True, overrides=[("student.tokenizer", "org/name")])
    sizes = student_sizes(recipe.student, lambda _: tmp_path)
    assert sizes.vocabulary == len(small_tokenizer())


def test_a_published_kda_model_has_this_many_parameters_in_attention() -> None:
    """AFM-4.5B-Base-KDA-Only: 36 layers of 2560, 20 heads of 128; its output gates also have a bias."""
    shapes = kda_shapes(2560, 20, 128, 4)
    in_layer = sum(torch.Size(shape).numel() for shape in shapes.values())
    assert 36 * (in_layer + 2560) == 994_043_088


def test_kda_replaces_attention(folder: Path) -> None:
    sizes = model_sizes("x", lambda _: folder)
    all_layers, one = sizes.with_kda(Kda()), sizes.with_kda(Kda(layers=[1]))
    in_layer = sum(torch.Size(shape).numel() for shape in kda_shapes(D, 4, 8, 4).values())
    assert all_layers.parameters == sizes.parameters + LAYERS * (in_layer - 3 * D * D)
    assert one.parameters == sizes.parameters + in_layer - 3 * D * D


def test_trained_parameters_follow_frozen_trained_and_lora(folder: Path, recipe: Recipe) -> None:
    sizes, [stage] = model_sizes("x", lambda _: folder), recipe.stages
    assert sizes.trained(stage) == sizes.parameters
    frozen = stage.model_copy(update={"frozen": ["embed_tokens", "lm_head", "norm"]})
    assert sizes.trained(frozen) == IN_LAYERS
    only = stage.model_copy(update={"trained": [r"mlp\."]})
    assert sizes.trained(only) == LAYERS * 3 * D * INNER
    lora = stage.model_copy(update={"lora": Lora(rank=2)})
    attention = 2 * (2 * D) + 2 * (D + D // 2)
    assert sizes.trained(lora) == 2 * LAYERS * (attention + 3 * (D + INNER))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers by an old name
def test_lora_counts_what_peft_trains(folder: Path, recipe: Recipe) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    model = peft.get_peft_model(AutoModelForCausalLM.from_config(CONFIG), config)
    trained, _ = model.get_nb_trainable_parameters()
    lora = recipe.stages[0].model_copy(update={"lora": Lora(rank=4)})
    assert model_sizes("x", lambda _: folder).trained(lora) == trained


def test_operations_are_six_a_parameter_and_two_of_the_teacher(folder: Path, recipe: Recipe) -> None:
    found = estimate(recipe, resolve_model=lambda _: folder, flop_s=1e6)
    [stage] = found.stages
    computing = D * VOCABULARY + IN_LAYERS + NORMS
    assert stage.tokens == 10 * 4 * 8
    assert stage.flop is not None
    assert stage.flop == pytest.approx(stage.tokens * (6 + 2) * computing)
    assert stage.hours == pytest.approx(stage.flop / (1e6 * EFFICIENCY) / 3600)
    assert "at most 320 tokens" in found.lines()[1]
    twice = recipe.model_copy(update={"stages": [recipe.stages[0].model_copy(update={"baseline": "sft"})]})
    both = estimate(twice, resolve_model=lambda _: folder, flop_s=1e6)
    assert both.stages[0].flop == 2 * stage.flop
    assert "with plain fine-tuning beside it" in both.lines()[1]
    assert "plain" not in found.lines()[1]
    assert found.to_json()["stages"][0]["tokens"] == 320


def test_what_is_known_of_the_data_makes_it_exact(folder: Path, recipe: Recipe) -> None:
    epochs = recipe.stages[0].model_copy(update={"steps": None, "epochs": 3.0})
    open_ended = recipe.model_copy(update={"stages": [epochs]})
    unknown = estimate(open_ended, resolve_model=lambda _: folder, flop_s=1e6)
    assert unknown.stages[0].tokens is None
    assert unknown.hours is None
    assert "as long as its data" in unknown.lines()[1]
    known = estimate(open_ended, resolve_model=lambda _: folder, flop_s=1e6, rows={"sharpen": 10})
    assert (known.stages[0].steps, known.stages[0].tokens) == (9, 9 * 4 * 8)


def test_a_teacher_that_is_asked_is_not_counted_and_that_is_said(folder: Path) -> None:
    found = estimate(read_recipe("dante", small=True), resolve_model=lambda _: folder, flop_s=1e6)
    assert "without the teacher's answering" in found.lines()[0]


def test_a_teacher_that_reads_stretches_of_text_costs_its_pass(folder: Path, recipe: Recipe) -> None:
    flop = {}
    for term in ("forward_kl", "alm"):
        stage = recipe.stages[0].model_copy(update={"objective": [Objective(term=term)]})
        cost = estimate(recipe.model_copy(update={"stages": [stage]}), resolve_model=lambda _: folder, flop_s=1e6)
        flop[term] = cost.stages[0].flop
    assert flop["alm"] == flop["forward_kl"]


@pytest.mark.parametrize("change", [{"trained": ["nothing"]}, {"frozen": ["."]}, {"lora": Lora(targets=["nope"])}])
def test_nothing_to_train(folder: Path, recipe: Recipe, change: dict[str, object]) -> None:
    nothing = recipe.model_copy(update={"stages": [recipe.stages[0].model_copy(update=change)]})
    with pytest.raises(ConfigError, match=r"stages.sharpen: .* nothing to be trained"):
        estimate(nothing, resolve_model=lambda _: folder, flop_s=1e6)


def test_a_tied_weight_answers_to_each_of_its_names(tmp_path: Path, recipe: Recipe) -> None:
    tied = LlamaConfig(**{**CONFIG.to_dict(), "tie_word_embeddings": True})
    tied.save_pretrained(tmp_path)
    sizes = model_sizes("x", lambda _: tmp_path)
    head = recipe.stages[0].model_copy(update={"trained": ["lm_head"]})
    assert sizes.trained(head) == D * VOCABULARY


def test_layers_that_the_model_does_not_have(folder: Path) -> None:
    for layers in ("[99]", "[-1]"):
        recipe = read_recipe("afm-kda", small=True, overrides=[("student.kda.layers", layers)])
        with pytest.raises(ConfigError, match=r"student\.kda\.layers"):
            student_sizes(recipe.student, lambda _: folder)


@pytest.mark.parametrize(("epochs", "rows", "steps"), [(1.0, 8, 2), (1.0, 9, 3), (2.5, 8, 5), (0.1, 4, 1)])
def test_epochs_become_steps(recipe: Recipe, epochs: float, rows: int, steps: int) -> None:
    stage = recipe.stages[0].model_copy(update={"steps": None, "epochs": epochs})
    assert steps_of(stage, rows) == steps


def test_memory_is_weights_gradients_and_moments(folder: Path, recipe: Recipe) -> None:
    sizes = model_sizes("x", lambda _: folder)
    [stage] = recipe.stages
    activations = 2 * 8 * D * 34 * LAYERS * 2
    assert memory_bytes(stage, recipe, sizes, sizes.parameters, None) == 16 * sizes.parameters + activations
    teacher = replace(sizes)
    assert memory_bytes(stage, recipe, sizes, sizes.parameters, teacher) == 18 * sizes.parameters + activations
    frugal = stage.model_copy(update={"gradient_checkpointing": True})
    less = 2 * 8 * D * (2 * LAYERS + 34) * 2
    assert memory_bytes(frugal, recipe, sizes, 0, None) == 4 * sizes.parameters + less


def test_this_machine_multiplies_at_some_speed() -> None:
    assert 1e8 < matmul_flop_s("float32") < 1e16


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            "model_type",
            "lama",
            "student.scratch.model_type 'lama' is no model type of transformers: did you mean llama",
        ),
        ("hidden_size", "250", "student.scratch: "),
        ("hidden_size", "abc", "student.scratch: "),
        ("hiden_size", "5", "student.scratch.hiden_size is no setting of llama: did you mean hidden_size"),
        ("num_hidden_layers", "0", "student.scratch.num_hidden_layers is 0: give at least 1"),
        ("num_attention_heads", "0", "student.scratch"),
    ],
)
def test_a_config_that_transformers_does_not_take(key: str, value: str, said: str) -> None:
    recipe = read_recipe("kodalite", small=True, overrides=[(f"student.scratch.{key}", value)])
    with pytest.raises(ConfigError) as raised:
        student_sizes(recipe.student, never)
    assert str(raised.value).startswith(said)
    assert len(str(raised.value)) < 300


def test_a_model_whose_config_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot tell the size of x"):
        model_sizes("x", lambda _: tmp_path)


def test_a_stage_of_rounds_has_no_length(folder: Path) -> None:
    recipe = read_recipe("memphis", small=True)
    found = estimate(recipe, resolve_model=lambda _: folder, flop_s=1e12)
    sft, rank = found.stages
    assert sft.tokens
    assert rank.tokens is None
    assert isinstance(recipe.stages[1], Stage)
    assert "without stages of unknown length" in found.lines()[0]
