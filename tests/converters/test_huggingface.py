"""GGUF to a Hugging Face folder: what transformers loads from it is what the file holds, to the last bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_logits import llama_logits
from tiny_checkpoints import RECIPES, TinyCheckpoint

from tapster.converters.checkpoint.checkpoint import open_checkpoint
from tapster.converters.gguf.architectures import embedding_rows, plan_model
from tapster.converters.gguf.plan import ModelPlan, TensorPlan
from tapster.converters.gguf.reader import GGUFTensors
from tapster.converters.gguf.writer import write_gguf
from tapster.converters.huggingface.folder import gguf_to_huggingface
from tapster.converters.huggingface.safetensors import write_shards
from tapster.converters.huggingface.tensors import out_tensors
from tapster.converters.tokenizer.read import read_vocabulary
from tapster.runtime.errors import ConversionError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

KNOWN = [recipe for recipe in RECIPES if not recipe.startswith("kda")]
SAME_KEYS = (
    *("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "max_position_embeddings", "tie_word_embeddings", "rope_parameters", "layer_types"),
    *("no_rope_layers", "sliding_window", "rms_norm_eps", "layer_norm_eps", "hidden_act", "use_parallel_residual"),
    *("qk_layernorm", "use_qkv_bias", "attention_bias", "mlp_bias", "query_pre_attn_scalar"),
    *("final_logit_softcapping", "bos_token_id", "pad_token_id"),
)
ANSWER = "The capital of France is Paris.<|im_end|>"
Make = Callable[[str], TinyCheckpoint]
MakeGGUF = Callable[[str, str], Path]


def plan_folder(folder: Path) -> ModelPlan:
    """The plan of a checkpoint folder."""
    checkpoint = open_checkpoint(folder)
    return plan_model(checkpoint, read_vocabulary(checkpoint, embedding_rows(checkpoint)))


@pytest.fixture(scope="module")
def returned(tiny_gguf: MakeGGUF, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder that comes out of a recipe's F32 file, in F32."""
    place = tmp_path_factory.mktemp("returned")

    def make(recipe: str) -> Path:
        if not (place / recipe).exists():
            gguf_to_huggingface(tiny_gguf(recipe, "F32"), place / recipe, dtype="F32")
        return place / recipe

    return make


def load(folder: Path) -> Any:
    """The model by transformers, in float32."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def logits_of(model: Any, ids: list[int]) -> np.ndarray:
    """(tokens, vocabulary)"""
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].numpy()


@pytest.mark.parametrize("recipe", KNOWN)
def test_every_weight_comes_back(recipe: str, tiny_checkpoint: Make, returned: Callable[[str], Path]) -> None:
    source, back = open_checkpoint(tiny_checkpoint(recipe).folder), open_checkpoint(returned(recipe))
    assert sorted(back.tensors) == sorted(source.tensors)
    for name, tensor in source.tensors.items():
        np.testing.assert_array_equal(back.tensors[name].float32(), tensor.float32(), err_msg=name)


@pytest.mark.parametrize("recipe", KNOWN)
def test_transformers_computes_the_same(recipe: str, tiny_checkpoint: Make, returned: Callable[[str], Path]) -> None:
    tiny = tiny_checkpoint(recipe)
    np.testing.assert_allclose(logits_of(load(returned(recipe)), tiny.tokens), tiny.logits, atol=2e-5, rtol=0)


@pytest.mark.parametrize("recipe", KNOWN)
def test_the_config_says_the_same(recipe: str, tiny_checkpoint: Make, returned: Callable[[str], Path]) -> None:
    read = transformers.AutoConfig.from_pretrained
    wanted, found = read(tiny_checkpoint(recipe).folder).to_dict(), read(returned(recipe)).to_dict()
    if wanted["model_type"] == "mistral":  # GGUF has no name of its own for it
        wanted["model_type"] = "llama"
    for key in SAME_KEYS:
        if wanted.get(key) is not None:
            assert found.get(key) == wanted[key], key
    assert found["architectures"] == [wanted["architectures"][0].replace("Mistral", "Llama")]


def test_16_bits_stay_16_bits(tiny_checkpoint: Make, tiny_gguf: MakeGGUF, tmp_path: Path) -> None:
    gguf_to_huggingface(tiny_gguf("llama", "BF16"), tmp_path / "back")
    source, back = open_checkpoint(tiny_checkpoint("llama").folder), open_checkpoint(tmp_path / "back")
    assert {tensor.dtype for tensor in back.tensors.values()} == {"BF16"}
    assert all((back.tensors[name].bits() == tensor.bits()).all() for name, tensor in source.tensors.items())


@pytest.fixture(scope="module")
def demo_folders(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The demo model as a folder in F32, and that as a GGUF file in F32."""
    place = tmp_path_factory.mktemp("demo")
    gguf_to_huggingface(demo_model, place / "hf", dtype="F32")
    write_gguf(place / "demo-F32.gguf", plan_folder(place / "hf"), "F32")
    return place / "hf", place / "demo-F32.gguf"


def test_the_demo_model_in_transformers(demo_folders: tuple[Path, Path]) -> None:
    """The answer is what is likeliest at every token, its end included; and the logits are llama.cpp's."""
    folder, gguf = demo_folders
    tokenizer, model = transformers.AutoTokenizer.from_pretrained(folder), load(folder)
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    before = tokenizer(prompt)["input_ids"]
    answer = tokenizer(ANSWER)["input_ids"]
    logits = logits_of(model, [*before, *answer])
    assert logits[len(before) - 1 : -1].argmax(-1).tolist() == answer
    assert answer[-1] == tokenizer.eos_token_id
    np.testing.assert_allclose(llama_logits(gguf, [*before, *answer]), logits, atol=1e-3, rtol=0)


def test_the_demo_model_is_the_same_after_a_second_round(demo_folders: tuple[Path, Path], tmp_path: Path) -> None:
    folder, gguf = demo_folders
    gguf_to_huggingface(gguf, tmp_path / "again", dtype="F32")
    first, second = open_checkpoint(folder), open_checkpoint(tmp_path / "again")
    assert second.config == first.config
    assert second.chat_templates == first.chat_templates
    assert second.generation_config == first.generation_config
    assert second.tokenizer_json == first.tokenizer_json
    assert all((second.tensors[name].bits() == tensor.bits()).all() for name, tensor in first.tensors.items())


@pytest.fixture
def gguf_with(tiny_checkpoint: Make, tmp_path: Path) -> Callable[..., Path]:
    """The tiny Llama as a GGUF file with metadata of its own; a double underscore stands for a dot."""

    def make(**metadata: Any) -> Path:
        plan = plan_folder(tiny_checkpoint("llama").folder)
        plan.metadata.update({key.replace("__", "."): value for key, value in metadata.items()})
        write_gguf(tmp_path / "model.gguf", plan, "BF16")
        return tmp_path / "model.gguf"

    return make


def test_how_it_stops_and_samples(gguf_with: Callable[..., Path], tmp_path: Path) -> None:
    source = gguf_with(
        tapster__stop_strings=["<|end|>", "### User:"],
        tokenizer__ggml__eot_token_id=5,
        tokenizer__ggml__eom_token_id=2,
        tokenizer__chat_template="{{ messages[0].content }}",
        tokenizer__chat_template__tool_use="{{ tools }}",
        general__sampling__temp=0.6,
        general__sampling__top_p=0.95,
    )
    gguf_to_huggingface(source, tmp_path / "back")
    back = open_checkpoint(tmp_path / "back")
    assert back.generation_config["eos_token_id"] == [2, 5]
    assert back.generation_config["stop_strings"] == ["<|end|>", "### User:"]
    assert (back.generation_config["temperature"], back.generation_config["top_p"]) == (0.6, 0.95)
    assert back.chat_templates == {"default": "{{ messages[0].content }}", "tool_use": "{{ tools }}"}
    loaded = transformers.GenerationConfig.from_pretrained(tmp_path / "back")
    assert loaded.eos_token_id == [2, 5]
    assert {tensor.dtype for tensor in back.tensors.values()} == {"BF16"}


def test_a_template_name_leads_nowhere_else(gguf_with: Callable[..., Path], tmp_path: Path) -> None:
    source = gguf_with(**{"tokenizer__chat_template__../../evil": "{{ 1 }}"})
    with pytest.raises(ConversionError, match="evil"):
        gguf_to_huggingface(source, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_shards_are_what_one_file_is(tiny_gguf: MakeGGUF, returned: Callable[[str], Path], tmp_path: Path) -> None:
    source, parts, read = tiny_gguf("stablelm-12b", "F32"), tmp_path / "parts", [0]
    gguf_to_huggingface(source, parts, dtype="F32")
    (parts / "model.safetensors").unlink()
    model = GGUFTensors(source)
    write_shards(parts, out_tensors(model), "F32", read.append, max_bytes=100_000)
    assert len(list(parts.glob("model-*.safetensors"))) > 2
    assert sum(read) == sum(tensor.num_bytes for tensor in model.values())
    whole, sharded = open_checkpoint(returned("stablelm-12b")), open_checkpoint(parts)
    assert sorted(whole.tensors) == sorted(sharded.tensors)
    assert all((whole.tensors[name].bits() == tensor.bits()).all() for name, tensor in sharded.tensors.items())


def test_an_existing_folder_is_left_alone(gguf_with: Callable[..., Path], tmp_path: Path) -> None:
    source = gguf_with()
    (tmp_path / "back").mkdir()
    with pytest.raises(ConversionError, match="already"):
        gguf_to_huggingface(source, tmp_path / "back")
    assert list((tmp_path / "back").iterdir()) == []


def test_an_unknown_architecture_is_refused(gguf_with: Callable[..., Path], tmp_path: Path) -> None:
    source = gguf_with(general__architecture="mamba")
    with pytest.raises(ConversionError, match=r"'mamba'.*llama, qwen2"):
        gguf_to_huggingface(source, tmp_path / "back")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama__attention__head_count", 0),
        ("llama__attention__head_count", "four"),
        ("llama__attention__key_length", 7),
        ("llama__block_count", 1.5),
        ("llama__block_count", 1),
        ("llama__block_count", 3),
        ("llama__embedding_length", ["a", "b"]),
        ("llama__rope__freq_base", "fast"),
        ("tokenizer__ggml__tokens", ["a", "b"]),
        ("tokenizer__ggml__merges", 3),
        ("tokenizer__ggml__model", "bert"),
    ],
)
def test_metadata_that_make_no_sense(gguf_with: Callable[..., Path], tmp_path: Path, key: str, value: Any) -> None:
    source = gguf_with(**{key: value})
    with pytest.raises(ConversionError):
        gguf_to_huggingface(source, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_f16_that_overflows_names_the_tensor(tiny_checkpoint: Make, tmp_path: Path) -> None:
    plan = plan_folder(tiny_checkpoint("llama").folder)
    at = next(i for i, tensor in enumerate(plan.tensors) if tensor.name == "output_norm.weight")
    plan.tensors[at] = TensorPlan("output_norm.weight", (64,), constant=lambda: np.full(64, 1e5))
    write_gguf(tmp_path / "model.gguf", plan, "F32")
    with pytest.raises(ConversionError, match=r"model\.norm\.weight.*100000"):
        gguf_to_huggingface(tmp_path / "model.gguf", tmp_path / "back", dtype="F16")
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]
