"""Every architecture computes in llama.cpp what it computes in transformers."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from llama_logits import llama_logits
from tiny_checkpoints import RECIPES, TinyCheckpoint, plan_folder

from tapster.converters.checkpoint.checkpoint import open_checkpoint

TOLERANCE = 1e-4
ROUGHER = {"gemma3": 1e-3, "gemma3-pattern": 1e-3, "kda-relu2": 1e-3}
"""llama.cpp looks Gemma's GELU up in a table of float16; ReLU² is written as something that only tends to it."""


@pytest.mark.parametrize("recipe", RECIPES)
def test_logits_are_those_of_transformers(
    recipe: str, tiny_checkpoint: Callable[[str], TinyCheckpoint], tiny_gguf: Callable[[str, str], Path]
) -> None:
    tiny = tiny_checkpoint(recipe)
    logits = llama_logits(tiny_gguf(recipe, "F32"), tiny.tokens)
    assert np.std(tiny.logits) > 0.5  # otherwise the tolerance says nothing
    np.testing.assert_allclose(logits, tiny.logits, rtol=0, atol=ROUGHER.get(recipe, TOLERANCE))


def test_the_text_model_of_one_that_sees(tiny_checkpoint: Callable[[str], TinyCheckpoint], tmp_path: Path) -> None:
    """Gemma 3 with images keeps its text model under other names, with its own config inside."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "tiny-gemma3"
    shutil.copytree(tiny_checkpoint("gemma3").folder, folder)
    tensors = load_file(folder / "model.safetensors")
    renamed = {f"language_model.{name}": tensor for name, tensor in tensors.items()}
    renamed["vision_tower.patch.weight"] = next(iter(tensors.values())).clone()
    save_file(renamed, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    outer = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": config}
    (folder / "config.json").write_text(json.dumps(outer))
    plan = plan_folder(folder)
    alone = plan_folder(tiny_checkpoint("gemma3").folder)
    assert [tensor.name for tensor in plan.tensors] == [tensor.name for tensor in alone.tensors]
    assert plan.metadata.keys() == alone.metadata.keys()
    assert any("images stay behind" in note for note in plan.notes)


def test_an_old_stablelm_is_the_new_one(tiny_checkpoint: Callable[[str], TinyCheckpoint], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint("stablelm").folder, tmp_path / "tiny-stablelm"))
    config = json.loads((folder / "config.json").read_text())
    rope = config.pop("rope_parameters")
    config.pop("partial_rotary_factor", None)
    old = {"rope_pct": rope["partial_rotary_factor"], "norm_eps": config.pop("layer_norm_eps"), "model_type": "x"}
    old |= {"rope_theta": int(rope["rope_theta"]), "rotary_scaling_factor": 1.0, "auto_map": {"AutoConfig": "c.C"}}
    old |= {"architectures": ["StableLMEpochForCausalLM"]}
    (folder / "config.json").write_text(json.dumps({**config, **old}))
    plan, new = plan_folder(folder), plan_folder(tiny_checkpoint("stablelm").folder)
    numbers = [{k: v for k, v in made.metadata.items() if k.startswith("stablelm.")} for made in (plan, new)]
    assert numbers[0] == numbers[1]
    assert any("auto_map" in note for note in plan.notes)


def test_kda_gets_a_layer_that_changes_nothing(tiny_checkpoint: Callable[[str], TinyCheckpoint]) -> None:
    plan = plan_folder(tiny_checkpoint("kda").folder)
    added = {tensor.name.removeprefix("blk.2."): tensor for tensor in plan.tensors if tensor.name.startswith("blk.2.")}
    assert plan.metadata["kimi-linear.block_count"] == 3
    assert np.array_equal(np.asarray(plan.metadata["kimi-linear.attention.head_count_kv"]), [0, 0, 1])
    assert not added["attn_output.weight"].float32().any()
    assert not added["ffn_down.weight"].float32().any()
    assert any("changes nothing" in note for note in plan.notes)


def test_relu_squared_leaves_the_weights_of_up_as_they_are(tiny_checkpoint: Callable[[str], TinyCheckpoint]) -> None:
    folder = tiny_checkpoint("kda-relu2").folder
    plan = {tensor.name: tensor for tensor in plan_folder(folder).tensors}
    up, gate = plan["blk.0.ffn_up.weight"].float32(), plan["blk.0.ffn_gate.weight"].float32()
    assert np.array_equal(gate, up * 4096)
    (source,) = (
        tensor
        for name, tensor in open_checkpoint(folder).tensors.items()
        if name.startswith("model.layers.0.") and name.endswith(".up_proj.weight")
    )
    assert np.array_equal(up, source.float32())
