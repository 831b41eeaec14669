"""A checkpoint folder: shards, settings, templates, card, and the refusals a user meets."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raw_checkpoint import Tensors, bfloat16, safetensors_bytes, write_checkpoint
from transformers import LlamaConfig, LlamaForCausalLM

from tapster.converters.checkpoint.checkpoint import open_checkpoint
from tapster.converters.options import ConvertOptions
from tapster.converters.source import open_source
from tapster.converters.targets import parse_targets
from tapster.runtime.errors import ConversionError

A: Tensors = {"a": ("BF16", bfloat16([[1.0, 2.0]]))}
B: Tensors = {"b": ("F32", np.array([3.0], np.float32))}
INDEX = "model.safetensors.index.json"


def refusal(folder: Path) -> str:
    with pytest.raises(ConversionError) as caught:
        open_checkpoint(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """Two shards and their index."""
    folder = write_checkpoint(tmp_path / "model", A)
    (folder / "model.safetensors").unlink()
    for number, tensors in enumerate((A, B), start=1):
        (folder / f"model-0000{number}-of-00002.safetensors").write_bytes(safetensors_bytes(tensors))
    write_index(folder, {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"})
    return folder


def write_index(folder: Path, weight_map: Any) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.mark.parametrize("shard_size", ["10GB", "20KB"])
def test_what_transformers_saves_is_read(tmp_path: Path, shard_size: str) -> None:
    config = LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, vocab_size=64
    )
    model = LlamaForCausalLM(config).bfloat16()
    model.save_pretrained(tmp_path / "saved", max_shard_size=shard_size)
    assert (len(list((tmp_path / "saved").glob("*.safetensors"))) > 1) == (shard_size == "20KB")
    found = open_checkpoint(tmp_path / "saved")
    assert (found.name, found.config["hidden_size"], found.config["model_type"]) == ("saved", 32, "llama")
    weights = model.state_dict()
    assert found.tensors.keys() == weights.keys()
    for name, tensor in found.tensors.items():
        assert tensor.dtype == "BF16"
        np.testing.assert_array_equal(tensor.float32(), weights[name].float().numpy())


def test_shards_are_read_with_and_without_their_index(sharded: Path) -> None:
    for _ in range(2):
        tensors = open_checkpoint(sharded).tensors
        assert {name: tensor.float32().tolist() for name, tensor in tensors.items()} == {"a": [[1, 2]], "b": [3]}
        (sharded / INDEX).unlink(missing_ok=True)


@pytest.mark.parametrize("with_index", [True, False])
def test_a_missing_shard(sharded: Path, with_index: bool) -> None:
    (sharded / "model-00001-of-00002.safetensors").unlink()
    if not with_index:
        (sharded / INDEX).unlink()
    assert "model-00001-of-00002.safetensors is missing (1 of 2 files)" in refusal(sharded)


def test_an_index_that_names_a_missing_tensor(sharded: Path) -> None:
    write_index(sharded, {"a": "model-00001-of-00002.safetensors", "c": "model-00002-of-00002.safetensors"})
    assert "says that 'c' is in model-00002-of-00002.safetensors, and it is not" in refusal(sharded)


@pytest.mark.parametrize(
    ("weight_map", "what"),
    [
        ({"a": "../secret.safetensors"}, "no file of its folder"),
        ({"a": "/etc/passwd"}, "no file of its folder"),
        ({"a": 3}, "no weight_map"),
        ({}, "no weight_map"),
        (None, "no weight_map"),
        ({"a": ""}, "is missing"),
    ],
)
def test_a_wrong_index(sharded: Path, weight_map: Any, what: str) -> None:
    write_index(sharded, weight_map)
    assert what in refusal(sharded)


def test_a_tensor_in_two_shards(sharded: Path) -> None:
    (sharded / "model-00002-of-00002.safetensors").write_bytes(safetensors_bytes({**A, **B}))
    assert "the tensor 'a' is in model-00002-of-00002.safetensors and in another file" in refusal(sharded)


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    folder = write_checkpoint(tmp_path / "model", A)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    message = refusal(folder)
    assert "pytorch_model.bin, a pickle" in message
    assert "save_pretrained" in message
    assert not (tmp_path / "sprung").exists()


def test_folders_that_are_no_checkpoint(tmp_path: Path) -> None:
    assert "is no folder" in refusal(tmp_path / "nowhere")
    assert "it has no config.json" in refusal(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert "has no weights" in refusal(tmp_path)
    (tmp_path / "model-00001-of-00999.safetensors").touch()
    assert "model-00002-of-00999.safetensors is missing (998 of 999 files)" in refusal(tmp_path)
    (tmp_path / "model-00001-of-00999.safetensors").unlink()
    (tmp_path / "x.gguf").touch()
    assert "x.gguf: give that file" in refusal(tmp_path)
    (tmp_path / "adapter_config.json").touch()
    assert "is an adapter" in refusal(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "3", "[" * 100_000, "\udcff", ""])
def test_a_config_that_is_no_json_object(tmp_path: Path, content: str) -> None:
    folder = write_checkpoint(tmp_path, A)
    (folder / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert "config.json" in refusal(folder)


def test_quantized_weights_are_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, A, config={"quantization_config": {"quant_method": "gptq", "bits": 4}})
    assert "already quantized (quantization_config in config.json: gptq)" in refusal(folder)


def test_an_mlx_folder_and_an_onnx_folder_are_refused_as_what_they_are(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, A, config={"quantization_config": {"bits": 4, "group_size": 64}})
    assert "(quantization_config in config.json: 4 bits)" in refusal(folder)
    other = tmp_path / "onnx"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "llama"}')
    (other / "model.onnx").touch()
    assert "onnx has an ONNX model, which cannot be converted" in refusal(other)


@pytest.mark.parametrize("spec", ["vllm://127.0.0.1:8000", "http://127.0.0.1:8000"])
def test_an_address_is_no_source(spec: str) -> None:
    with pytest.raises(ConversionError, match=f"{spec} is an address"):
        open_source(spec, ConvertOptions(targets=parse_targets(["onnx:int4"])))


def test_files_that_are_not_there_are_empty(tmp_path: Path) -> None:
    found = open_checkpoint(write_checkpoint(tmp_path / "models--org--Name-1B" / "snapshots" / "0123", A))
    assert found.name == "Name-1B"
    for value in (found.generation_config, found.tokenizer_config, found.special_tokens_map, found.card):
        assert value == {}
    assert (found.chat_templates, found.tokenizer_json, found.tokenizer_model) == ({}, None, None)


def test_the_settings_and_the_card(tmp_path: Path) -> None:
    files = {"generation_config": {"eos_token_id": [1, 2]}, "tokenizer_config": {"x": 1}, "tokenizer": {"model": {}}}
    folder = write_checkpoint(tmp_path, A, **files)
    (folder / "tokenizer.model").touch()
    (folder / "README.md").write_text("---\nlicense: mit\ntags:\n- a\n- b\n---\n# Title\n---\n")
    found = open_checkpoint(folder)
    assert (found.generation_config, found.tokenizer_config) == ({"eos_token_id": [1, 2]}, {"x": 1})
    assert (found.tokenizer_json, found.tokenizer_model) == ({"model": {}}, folder / "tokenizer.model")
    assert found.card == {"license": "mit", "tags": ["a", "b"]}


@pytest.mark.parametrize(
    "text", ["", "# Title\n---\nlicense: mit\n---\n", "---\n- 1\n---\n", "---\na: [\n---\n", "---\na: 1"]
)
def test_a_card_of_no_use_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    folder = write_checkpoint(tmp_path, A)
    (folder / "README.md").write_text(text)
    assert open_checkpoint(folder).card == {}


def test_templates_come_from_the_newest_place(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "old"}, {"name": "rag", "template": "old rag"}]
    folder = write_checkpoint(tmp_path, A, tokenizer_config={"chat_template": named})
    assert open_checkpoint(folder).chat_templates == {"default": "old", "rag": "old rag"}
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "newer"}))
    assert open_checkpoint(folder).chat_templates == {"default": "newer"}
    (folder / "chat_template.jinja").write_bytes("newest\r\n😀".encode())
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("tools")
    assert open_checkpoint(folder).chat_templates == {"default": "newest\r\n😀", "tool_use": "tools"}


@pytest.mark.parametrize("value", [3, [3], [{"name": "x"}], [{"template": "x"}], {"default": 3}])
def test_a_template_that_is_no_text(tmp_path: Path, value: Any) -> None:
    folder = write_checkpoint(tmp_path, A, tokenizer_config={"chat_template": value})
    assert "chat_template in" in refusal(folder)
