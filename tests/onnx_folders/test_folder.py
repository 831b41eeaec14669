"""The folder itself: bytes, sizes, what can be read back, what is refused, and how much memory writing takes."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from peak_memory import conversion_megabytes
from tiny_checkpoints import TinyCheckpoint, edit_json

from tapster.converters.checkpoint.checkpoint import open_checkpoint
from tapster.converters.folder import FolderReport
from tapster.converters.onnx.architectures import read_decoder
from tapster.converters.onnx.options import OnnxOptions
from tapster.converters.onnx.reader import read_folder
from tapster.converters.onnx.write import write_onnx
from tapster.runtime.errors import ConversionError

Checkpoints = Callable[[str], TinyCheckpoint]
Folders = Callable[..., tuple[Path, FolderReport]]


@pytest.mark.parametrize("recipe", ["llama-biases", "llama-linear", "stablelm-12b", "qwen3", "arcee"])
@pytest.mark.parametrize(("type_name", "most"), [("fp32", 0), ("fp16", 1e-3), ("int8", 0.01), ("int4", 0.13)])
def test_every_tensor_reads_back(
    recipe: str, type_name: str, most: float, tiny_checkpoint: Checkpoints, onnx_folder: Folders
) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint(recipe).folder)
    _, report = onnx_folder(recipe, type_name)
    covered: set[str] = set()
    for name, tensor in report.tensors.items():
        expected = np.concatenate([checkpoint.tensors[source].float32() for source in tensor.sources])
        got = tensor.read(slice(0, tensor.shape[0]))
        assert got.dtype == np.float32
        assert got.shape == tensor.shape
        error = np.sqrt(np.square(got.ravel() - expected.ravel()).mean() / np.square(expected).mean())
        assert error <= most, name
        middle = tensor.read(slice(1, 3))
        np.testing.assert_array_equal(middle, got[1:3])
        covered.update(tensor.sources)
    assert covered == set(checkpoint.tensors)


def test_types_are_named(onnx_folder: Folders) -> None:
    _, report = onnx_folder("llama", "int4", group_size=128)
    types = {name: tensor.type for name, tensor in report.tensors.items()}
    assert types["model.layers.0.mlp.down_proj.weight"] == "int4-g128"
    assert types["model.embed_tokens.weight"] == types["lm_head.weight"] == "int8-g32"
    assert types["model.norm.weight"] == "fp32"


def test_tied_embeddings_are_stored_once(onnx_folder: Folders) -> None:
    """The file is about the size of the weights, and a tied model's has one table, not two."""
    for type_name in ("fp32", "fp16", "int8", "int4"):
        folder, report = onnx_folder("qwen2", type_name)
        assert "lm_head.weight" not in report.tensors
        stored = sum(tensor.num_bytes for tensor in report.tensors.values())
        tables = 2 * 512 * 8 * 4
        size = (folder / "model.onnx.data").stat().st_size
        assert size < stored + tables + (1 << 12) * 3 * len(report.tensors)


def test_same_bytes_again(tiny_checkpoint: Checkpoints, onnx_folder: Folders, tmp_path: Path) -> None:
    folder, _ = onnx_folder("smollm3", "int4")
    write_onnx(open_checkpoint(tiny_checkpoint("smollm3").folder), tmp_path, OnnxOptions(type="int4"))
    for path in folder.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_large_blobs_can_be_mapped(onnx_folder: Folders) -> None:
    ir = pytest.importorskip("onnx_ir")
    folder, _ = onnx_folder("llama", "int4")
    places = [
        (tensor.offset, tensor.length)
        for value in ir.load(folder / "model.onnx").graph.initializers.values()
        if isinstance(tensor := value.const_value, ir.ExternalTensor)
    ]
    assert places
    assert all(offset % (1 << 16 if length >= 1 << 20 else 1 << 12) == 0 for offset, length in places)


def test_graph_is_sound(onnx_folder: Folders) -> None:
    """onnx's own checker, and the names that other programs look for."""
    onnx = pytest.importorskip("onnx")
    folder, _ = onnx_folder("llama", "fp32")
    model = onnx.load(folder / "model.onnx")
    for node in model.graph.node:  # the checker does not know onnxruntime's own operator by this name
        if node.op_type == "SimplifiedLayerNormalization":
            node.domain = "com.microsoft"
    onnx.checker.check_model(model)
    inputs = [item.name for item in model.graph.input]
    assert inputs[:4] == ["input_ids", "attention_mask", "past_key_values.0.key", "past_key_values.0.value"]
    assert [item.name for item in model.graph.output][:3] == ["logits", "present.0.key", "present.0.value"]


def test_genai_config(onnx_folder: Folders) -> None:
    folder, _ = onnx_folder("smollm3", "fp32")
    config = json.loads((folder / "genai_config.json").read_text())
    assert config["model"]["eos_token_id"] == [2, 1]
    assert config["model"]["context_length"] == config["search"]["max_length"] == 512
    assert config["search"]["past_present_share_buffer"] is True


def _edited(source: Path, folder: Path, **values: object) -> Path:
    shutil.copytree(source, folder)
    edit_json(folder / "config.json", **values)
    return folder


@pytest.mark.parametrize(
    ("recipe", "values", "words"),
    [
        ("llama", {"unheard_of": 3}, "unheard_of = 3, which tapster does not know for llama"),
        ("llama", {"final_logit_softcapping": 30.0}, "the graph that tapster writes does not have it for llama"),
        ("llama", {"hidden_act": "gelu"}, "the graph of llama has only silu"),
        ("arcee", {"hidden_act": "silu"}, "the graph of arcee has only relu2"),
        ("llama", {"architectures": ["GPT2LMHeadModel"]}, "cannot write as ONNX: it writes LlamaForCausalLM"),
        ("llama", {"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, "rope_type = 'longrope'"),
        ("llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2, "new": 1}}, "new = 1"),
        ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": -2}}, "not above zero"),
        ("llama", {"num_hidden_layers": 1}, "the checkpoint has the tensor model.layers.1"),
        ("llama", {"num_hidden_layers": 3}, "no tensor model.layers.2"),
        ("llama", {"num_key_value_heads": 3}, "no multiple of num_key_value_heads"),
        ("llama", {"head_dim": 20}, "multiples of 8"),
        ("llama", {"intermediate_size": 97}, "config.json asks for"),
        ("llama", {"attention_bias": True}, "no tensor model.layers.0.self_attn.q_proj.bias"),
        ("smollm3", {"no_rope_layers": [1, 0]}, "a 0 or 1 for each layer"),
        ("smollm3", {"layer_types": ["full_attention"] * 4 + ["chunked_attention"]}, "'chunked_attention'"),
        ("stablelm", {"partial_rotary_factor": 0.01, "rope_parameters": None}, "an even number is needed"),
    ],
)
def test_refused(
    recipe: str, values: dict[str, object], words: str, tiny_checkpoint: Checkpoints, tmp_path: Path
) -> None:
    folder = _edited(tiny_checkpoint(recipe).folder, tmp_path / "edited", **values)
    with pytest.raises(ConversionError) as caught:
        read_decoder(open_checkpoint(folder))
    assert words in str(caught.value)
    assert "GGUF" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"type": "int3"}, "the types are fp32, fp16, int8, int4"),
        ({"type": "fp16", "group_size": 32}, "has no groups"),
        ({"type": "int4", "group_size": 64}, "32 or 128"),
        ({"type": "int8", "method": "rtn"}, "is for onnx:int4"),
        ({"type": "int4", "method": "gptq"}, "rtn or k-quant"),
    ],
)
def test_options_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConversionError, match=words):
        OnnxOptions(**options)  # type: ignore[arg-type]  # that is what is tested


def _with_value(source: Path, folder: Path, value: float) -> Path:
    """A copy in float32 in which one weight is ``value``."""
    from safetensors.numpy import save_file

    shutil.copytree(source, folder)
    tensors = {name: tensor.float32().copy() for name, tensor in open_checkpoint(source).tensors.items()}
    tensors["model.layers.0.mlp.up_proj.weight"][3, 5] = value
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_number_is_refused(value: float, tiny_checkpoint: Checkpoints, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(_with_value(tiny_checkpoint("llama").folder, tmp_path / "broken", value))
    with pytest.raises(ConversionError, match="has an infinity or NaN"):
        write_onnx(checkpoint, tmp_path, OnnxOptions(type="int4"))


def test_beyond_float16(tiny_checkpoint: Checkpoints, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(_with_value(tiny_checkpoint("llama").folder, tmp_path / "large", -70000.0))
    with pytest.raises(ConversionError, match="has the value 70000, beyond float16"):
        write_onnx(checkpoint, tmp_path, OnnxOptions(type="fp16"))
    report = write_onnx(checkpoint, tmp_path, OnnxOptions(type="fp16", clamp=True))
    assert report.clamped == {"model.layers.0.mlp.up_proj.weight": 1}


def test_no_folder_of_ours(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\xff\xff\xff")
    with pytest.raises(ConversionError, match="cannot be read"):
        read_folder(tmp_path)


def test_memory_does_not_grow_with_the_model(tiny_checkpoint: Checkpoints, tmp_path: Path) -> None:
    """A checkpoint of 256 MB, nearly all of it one table, takes a few chunks and the imports (some 110 MB)."""
    from safetensors.numpy import save_file

    source = tmp_path / "large"
    shutil.copytree(tiny_checkpoint("llama-linear").folder, source)
    rows = 1 << 20
    edit_json(source / "config.json", vocab_size=rows)
    tensors = {name: tensor.float32() for name, tensor in open_checkpoint(source).tensors.items()}
    tensors["model.embed_tokens.weight"] = np.ones((rows, tensors["model.embed_tokens.weight"].shape[1]), np.float32)
    save_file(tensors, source / "model.safetensors")
    del tensors
    target = tmp_path / "target"
    target.mkdir()
    assert conversion_megabytes(source, target, "int8") < 250


def test_missing_packages_are_named(
    tiny_checkpoint: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    with pytest.raises(ConversionError, match=r"pip install 'tapster\[onnx\]'"):
        write_onnx(open_checkpoint(tiny_checkpoint("llama").folder), tmp_path, OnnxOptions(type="int4"))
    assert not list(tmp_path.iterdir())
