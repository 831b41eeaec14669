"""MLX folders: mlx-lm loads them unchanged and computes what transformers does; packed values are near their source."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.utils import load_model
from tiny_checkpoints import TinyCheckpoint

from tapster.converters.checkpoint.checkpoint import open_checkpoint
from tapster.converters.folder import FolderReport
from tapster.converters.mlx.options import TYPES, MlxOptions
from tapster.converters.mlx.write import conversion_notes, write_mlx
from tapster.converters.progress import Silent
from tapster.runtime.errors import ConversionError

MlxFolder = Callable[..., tuple[Path, FolderReport]]
Tiny = Callable[[str], TinyCheckpoint]

COMPUTED = (
    *("llama", "llama-biases", "llama-linear", "llama-yarn", "llama-yarn-factor", "mistral", "smollm3"),
    *("qwen2", "qwen3", "stablelm", "stablelm-12b", "arcee", "gemma3"),
)
WORST = {"2bit": 0.5, "3bit": 0.25, "4bit": 0.12, "5bit": 0.06, "6bit": 0.03, "8bit": 0.01}
WORST |= {"mxfp4": 0.25, "mxfp8": 0.07, "nvfp4": 0.2, "bf16": 0.0}
"""How far a value may be from its source, as a part of the largest."""


@pytest.mark.parametrize("recipe", COMPUTED)
def test_mlx_lm_computes_what_transformers_does(recipe: str, tiny_checkpoint: Tiny, mlx_folder: MlxFolder) -> None:
    source = tiny_checkpoint(recipe)
    model, _ = load_model(mlx_folder(recipe, "bf16")[0], trust_remote_code=recipe == "arcee")
    model.set_dtype(mx.float32)
    found = np.array(model(mx.array(source.tokens)[None])[0])
    assert np.abs(found - source.logits).max() < 1e-4


@pytest.mark.parametrize("type_name", TYPES)
def test_every_type_is_read_back_near_its_source(type_name: str, tiny_checkpoint: Tiny, mlx_folder: MlxFolder) -> None:
    folder, report = mlx_folder("llama", type_name)
    source = open_checkpoint(tiny_checkpoint("llama").folder).tensors
    assert report.tensors.keys() == source.keys()
    for name, tensor in report.tensors.items():
        wanted = source[name].float32()
        assert tensor.shape == wanted.shape
        assert tensor.sources == (name,)
        rows = np.concatenate([tensor.read(slice(0, 3)), tensor.read(slice(3, None))])
        worst = np.abs(rows - wanted).max() / np.abs(wanted).max()
        assert worst <= (WORST[type_name] if wanted.ndim > 1 else 0)
        if wanted.ndim > 1 and type_name != "bf16":
            assert worst > 0
            assert tensor.type.startswith(type_name)
    assert load_model(folder)[0] is not None


def test_rows_that_are_no_whole_groups_take_smaller_ones(mlx_folder: MlxFolder) -> None:
    folder, report = mlx_folder("llama", "4bit", 128)
    config = json.loads((folder / "config.json").read_text())["quantization"]
    narrow = {name: tensor for name, tensor in report.tensors.items() if tensor.shape[-1] % 128}
    packed = {name: tensor.shape[-1] for name, tensor in narrow.items() if len(tensor.shape) > 1}
    assert set(packed.values()) == {64, 96}
    assert report.fallbacks == {name: "4bit-g32" if row % 64 else "4bit-g64" for name, row in packed.items()}
    assert {f"{name}.weight" for name in config if name not in ("group_size", "bits", "mode")} == set(packed)
    assert load_model(folder)[0] is not None


def test_the_same_checkpoint_makes_the_same_bytes(tiny_checkpoint: Tiny, mlx_folder: MlxFolder, tmp_path: Path) -> None:
    first, _ = mlx_folder("llama", "4bit")
    write_mlx(open_checkpoint(tiny_checkpoint("llama").folder), tmp_path / "again", MlxOptions("4bit"), Silent())
    for path in first.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_large_models_are_written_in_parts(
    tiny_checkpoint: Tiny, mlx_folder: MlxFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = mlx_folder("llama", "4bit")
    monkeypatch.setattr("tapster.converters.mlx.safetensors.SHARD_BYTES", 20_000)
    write_mlx(open_checkpoint(tiny_checkpoint("llama").folder), tmp_path / "parts", MlxOptions("4bit"), Silent())
    assert len(list((tmp_path / "parts").glob("model-*-of-*.safetensors"))) > 1
    ids = mx.array([[5, 6, 7]])
    first, second = (load_model(folder)[0](ids) for folder in (whole, tmp_path / "parts"))
    assert mx.array_equal(first, second)


def test_the_folder_says_how_it_stops(tiny_checkpoint: Tiny, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint("llama").folder)
    template = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    checkpoint = replace(checkpoint, chat_templates={"default": template})
    write_mlx(checkpoint, tmp_path / "made", MlxOptions("8bit"), Silent())
    generation = json.loads((tmp_path / "made" / "generation_config.json").read_text())
    assert generation["stop_strings"] == ["<|end|>"]
    assert generation["eos_token_id"] == [2, 1]
    assert (tmp_path / "made" / "chat_template.jinja").read_text() == template


def test_arcee_brings_its_model(mlx_folder: MlxFolder, tiny_checkpoint: Tiny) -> None:
    folder, _ = mlx_folder("arcee", "4bit")
    assert json.loads((folder / "config.json").read_text())["model_file"] == "arcee.py"
    with pytest.raises(ValueError, match="trust_remote_code"):
        load_model(folder)
    model, _ = load_model(folder, trust_remote_code=True)
    assert model(mx.array([[5, 6]])).shape[-1] == tiny_checkpoint("arcee").logits.shape[-1]
    notes = conversion_notes(open_checkpoint(tiny_checkpoint("arcee").folder))
    assert any("--trust-remote-code" in note for note in notes)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "it knows LlamaForCausalLM, Mistral"),
        ({"some_new_switch": 3}, "some_new_switch"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "rope_type"),
        ({"sliding_window": 64}, "sliding_window"),
        ({"hidden_size": 96}, "does not fit"),
    ],
)
def test_what_mlx_lm_would_get_wrong_is_refused(
    changed: dict[str, object], message: str, tiny_checkpoint: Tiny, tmp_path: Path
) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint("llama").folder)
    checkpoint = replace(checkpoint, config={**checkpoint.config, **changed})
    with pytest.raises(ConversionError, match=message) as caught:
        write_mlx(checkpoint, tmp_path / "made", MlxOptions("4bit"), Silent())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "group_size"), [("4bit", 48), ("mxfp4", 64), ("bf16", 32), ("7bit", None)])
def test_types_and_groups_that_do_not_exist(name: str, group_size: int | None) -> None:
    with pytest.raises(ConversionError):
        MlxOptions(name, group_size)
