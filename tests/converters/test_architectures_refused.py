"""What GGUF cannot hold, or nobody understands, is refused in one line that names it."""

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raw_checkpoint import safetensors_bytes
from tiny_checkpoints import TinyCheckpoint, edit_json, plan_folder

from tapster.converters.checkpoint.checkpoint import open_checkpoint
from tapster.converters.gguf.architectures import ARCHITECTURES, embedding_rows, find_architecture
from tapster.runtime.errors import ConversionError

Copied = Callable[[str], Path]


@pytest.fixture
def copied(tiny_checkpoint: Callable[[str], TinyCheckpoint], tmp_path: Path) -> Copied:
    """A copy of a tiny checkpoint, to be spoilt."""

    def copy(recipe: str) -> Path:
        return Path(shutil.copytree(tiny_checkpoint(recipe).folder, tmp_path / recipe))

    return copy


_LINEAR = {"rope_type": "linear", "factor": 2.0}
_LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LLAMA3["original_max_position_embeddings"] = 64
CONFIGS: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {"attention_multiplier": 0.5}, "attention_multiplier = 0.5"),
    ("llama", {"logits_scaling": 8.0}, "logits_scaling = 8.0"),
    ("llama", {"use_qk_norm": True}, "use_qk_norm = True"),
    ("llama", {"something_new": False}, "something_new = False"),
    ("llama", {"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
    ("llama", {"sliding_window": 64}, "sliding_window = 64"),
    ("llama", {"rope_interleaved": True}, "rope_interleaved"),
    ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
    ("llama", {"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0]}}, "rope_type = 'longrope'"),
    ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "warp": 1}}, "rope_parameters.warp"),
    ("llama", {"rope_scaling": {"rope_type": "linear"}}, "rope_parameters.factor"),
    ("llama", {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "beta_fast": 16}}, "beta_fast = 16"),
    ("llama", {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "truncate": False}}, "truncate = False"),
    ("llama", {"attention_bias": True}, "no tensor model.layers.0.self_attn.q_proj.bias"),
    ("llama", {"num_key_value_heads": 3}, "no multiple"),
    ("llama", {"hidden_size": "64"}, "hidden_size = '64'"),
    ("llama", {"num_hidden_layers": 3}, "no tensor model.layers.2."),
    ("llama", {"num_hidden_layers": 1}, "has the tensor model.layers.1."),
    ("llama", {"intermediate_size": 128}, "mlp.gate_proj.weight has the shape"),
    ("llama", {"tie_word_embeddings": True}, "lm_head.weight is not embed_tokens.weight"),
    ("llama", {"head_dim": 4_000_000_000, "rope_scaling": _LLAMA3}, "self_attn.q_proj.weight has the shape"),
    ("llama", {"rope_scaling": {**_LLAMA3, "low_freq_factor": 9.0}}, "low_freq_factor = 9"),
    ("llama", {"rope_scaling": _LINEAR, "original_max_position_embeddings": 64}, "original_max_position_embeddings"),
    ("llama", {"use_mrope": True}, "use_mrope = True"),
    ("qwen2", {"attention_bias": True}, "attention_bias = True"),
    ("mistral", {"sliding_window": 128}, "sliding_window = 128"),
    ("smollm3", {"no_rope_layers": [1, 1, 1, 1, 1]}, "no_rope_layers = [1, 1, 1, 1, 1]"),
    ("smollm3", {"no_rope_layers": None, "no_rope_layer_interval": 2}, "no_rope_layers"),
    (
        "smollm3",
        {"layer_types": ["sliding_attention"] * 5, "sliding_window": 8, "use_sliding_window": True},
        "layer_types",
    ),
    ("smollm3", {"mlp_bias": True}, "mlp_bias = True"),
    ("smollm3", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_type = 'llama3'"),
    (
        "qwen2",
        {"layer_types": None, "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
        "_window = 9",
    ),
    ("qwen2", {"head_dim": 32}, "head_dim = 32"),
    ("qwen3", {"attention_bias": True}, "attention_bias = True"),
    ("stablelm", {"partial_rotary_factor": 0.1, "rope_parameters": None}, "partial_rotary_factor = 0.1"),
    ("stablelm", {"rotary_scaling_factor": 2.0}, "rotary_scaling_factor"),
    ("stablelm", {"use_parallel_residual": True}, "post_attention_layernorm"),
    ("arcee", {"hidden_act": "silu"}, "hidden_act = 'silu'"),
    ("gemma3", {"query_pre_attn_scalar": 64}, "query_pre_attn_scalar = 64"),
    ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
    ("gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ("kda", {"hidden_act": "relu2"}, "hidden_act = 'relu2'"),
    ("kda", {"mlp_layer_types": ["dense", "sparse"]}, "mixture of experts"),
    ("kda", {"gate_lower_bound": -5.0}, "gate_lower_bound"),
    ("kda-full", {"num_attention_heads": 4}, "num_attention_heads = 4"),
    ("kda-full", {"q_lora_rank": 32}, "q_lora_rank"),
]


@pytest.mark.parametrize(
    ("recipe", "values", "named"), CONFIGS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_config_that_cannot_be_held(copied: Copied, recipe: str, values: dict[str, Any], named: str) -> None:
    folder = copied(recipe)
    edit_json(folder / "config.json", **values)
    with pytest.raises(ConversionError) as refusal:
        plan_folder(folder)
    assert named in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("recipe", "values"),
    [
        ("llama", {"rope_interleaved": False, "use_qk_norm": False, "logits_scaling": 1.0, "something_new": None}),
        ("llama", {"torch_dtype": "bfloat16", "pretraining_tp": 2, "temperature": 0.5, "is_llama_config": True}),
        ("llama", {"max_sequence_length": 99, "original_max_position_embeddings": 64, "use_mrope": False}),
        ("mistral", {"sliding_window": 512}),
        ("mistral", {"max_position_embeddings": 8192}),  # of the recipe, with null for a window
        ("qwen2", {"use_mrope": False, "attention_bias": False, "mlp_bias": False, "max_sequence_length": 8}),
        ("kda", {"original_max_position_embeddings": 64, "use_mrope": False}),
        ("qwen2", {"sliding_window": 8, "max_window_layers": 1, "use_sliding_window": False}),
        ("smollm3", {"no_rope_layers": [1, 1, 1, 0, 1, 1, 1, 0]}),
    ],
)
def test_what_changes_nothing_passes(copied: Copied, recipe: str, values: dict[str, Any]) -> None:
    folder = copied(recipe)
    before = plan_folder(folder)
    edit_json(folder / "config.json", **values)
    after = plan_folder(folder)
    assert {plan.name for plan in after.tensors} == {plan.name for plan in before.tensors}
    assert after.metadata.keys() == before.metadata.keys()


@pytest.mark.parametrize(
    ("recipe", "context", "values", "is_refused"),
    [
        ("mistral", 4096, {}, False),
        ("mistral", 4097, {}, True),
        ("qwen2", 4097, {"layer_types": None}, False),  # the switch is off
        ("qwen2", 4097, {"layer_types": None, "use_sliding_window": True, "max_window_layers": 1}, True),
    ],
)
def test_a_config_that_is_silent_about_its_window(
    copied: Copied, recipe: str, context: int, values: dict[str, Any], is_refused: bool
) -> None:
    """Unlike in one that says null there is a window: transformers' default is 4096."""
    path = copied(recipe) / "config.json"
    config = json.loads(path.read_text()) | {"max_position_embeddings": context, **values}
    assert config.pop("sliding_window", 0) is None
    path.write_text(json.dumps(config))
    with pytest.raises(ConversionError, match="no sliding_window, which means 4096") if is_refused else nullcontext():
        plan_folder(path.parent)


def test_an_old_config_says_the_same(copied: Copied) -> None:
    folder = copied("llama-biases")
    new = plan_folder(folder)
    config = json.loads((folder / "config.json").read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = {"type": rope.pop("rope_type"), **rope}
    (folder / "config.json").write_text(json.dumps(config))
    old = plan_folder(folder)
    assert old.metadata["llama.rope.freq_base"] == new.metadata["llama.rope.freq_base"] == 500000.0
    factors = [next(plan for plan in made.tensors if plan.name == "rope_freqs.weight").float32() for made in (old, new)]
    assert np.array_equal(factors[0], factors[1])
    assert factors[0].min() == 1
    assert factors[0].max() == 8


def _with_tensor(folder: Path, name: str, shape: tuple[int, ...]) -> None:
    """Add a tensor of zeros to a checkpoint, in a second shard."""
    model = folder / "model.safetensors"
    names = open_checkpoint(folder).tensors
    model.rename(folder / "model-00001-of-00002.safetensors")
    second = safetensors_bytes({name: ("F32", np.zeros(shape, np.float32))})
    (folder / "model-00002-of-00002.safetensors").write_bytes(second)
    places = dict.fromkeys(names, "model-00001-of-00002.safetensors") | {name: "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


@pytest.mark.parametrize(
    ("recipe", "name", "named"),
    [
        ("llama", "model.layers.0.self_attn.q_norm.weight", "model.layers.0.self_attn.q_norm.weight"),
        ("kda", "model.layers.0.self_attn.g_b_proj.bias", "no bias on the output gate"),
        ("qwen2", "score.weight", "score.weight"),
    ],
)
def test_a_tensor_nobody_uses(copied: Copied, recipe: str, name: str, named: str) -> None:
    folder = copied(recipe)
    _with_tensor(folder, name, (64,))
    with pytest.raises(ConversionError, match=named):
        plan_folder(folder)


def test_a_tensor_that_everyone_computes_may_stay_behind(copied: Copied) -> None:
    folder = copied("llama")
    _with_tensor(folder, "model.layers.0.self_attn.rotary_emb.inv_freq", (8,))
    assert plan_folder(folder)


def test_an_unknown_architecture_names_the_known_ones_the_nearest_first() -> None:
    with pytest.raises(ConversionError) as refusal:
        find_architecture({"architectures": ["Qwen3MoeForCausalLM"]})
    message = str(refusal.value)
    assert "'Qwen3MoeForCausalLM'" in message
    assert "it knows Qwen3ForCausalLM, " in message
    assert all(architecture.classes[0] in message for architecture in ARCHITECTURES)


@pytest.mark.parametrize("config", [{}, {"architectures": None}, {"architectures": [], "model_type": 5}])
def test_a_config_without_an_architecture(config: dict[str, Any]) -> None:
    with pytest.raises(ConversionError, match="architecture"):
        find_architecture(config)


def test_the_model_type_serves_where_no_class_is_named() -> None:
    assert find_architecture({"model_type": "mistral"}).name == "llama"


def test_rows_of_the_embedding(tiny_checkpoint: Callable[[str], TinyCheckpoint]) -> None:
    tiny = tiny_checkpoint("llama")
    assert embedding_rows(open_checkpoint(tiny.folder)) == tiny.logits.shape[1]
