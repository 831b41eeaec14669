"""What is wrong with a checkpoint is one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_checkpoints import edit_json

from tapster.runtime.engines.registry import ENGINES
from tapster.runtime.engines.transformers.config import TransformersConfig
from tapster.runtime.errors import ConfigError, ModelError


@pytest.fixture
def broken(llama: Path, tmp_path: Path) -> Path:
    """A copy to be broken."""
    return Path(shutil.copytree(llama, tmp_path / "model"))


def refusal(folder: Path, **options: Any) -> str:
    from tapster.runtime.engines.transformers.open_model import open_model

    with pytest.raises((ModelError, ConfigError)) as caught:
        open_model(folder, TransformersConfig(**options), context_length=64, parallel=2)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_class_for_the_architecture(broken: Path) -> None:
    edit_json(broken / "config.json", model_type="brand_new", architectures=["BrandNewForCausalLM"])
    assert "brand_new" in refusal(broken)


def test_an_encoder(broken: Path) -> None:
    edit_json(broken / "config.json", model_type="t5", architectures=["T5Model"])
    assert "no generative model for the architecture 't5'" in refusal(broken)


def test_code_of_its_own(broken: Path) -> None:
    auto_map = {"AutoConfig": "configuration_new.NewConfig", "AutoModelForCausalLM": "modeling_new.NewModel"}
    edit_json(broken / "config.json", model_type="brand_new", auto_map=auto_map)
    (broken / "configuration_new.py").write_text("raise SystemExit('this must not run')")
    assert "Python code of its own" in refusal(broken)


def test_a_missing_shard(broken: Path) -> None:
    (broken / "model.safetensors").unlink()
    index = {"metadata": {"total_size": 9}, "weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (broken / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "model-00001-of-00002.safetensors" in refusal(broken)


def test_missing_weights_are_not_made_up(broken: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(broken / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    assert "lacks weights, or has them in another shape: model.layers.1.mlp.up_proj.weight" in refusal(broken)


def test_weights_in_another_shape(broken: Path) -> None:
    edit_json(broken / "config.json", intermediate_size=128)
    assert "in another shape: model.layers.0.mlp.down_proj.weight and 5 more" in refusal(broken)


def test_a_damaged_file(broken: Path) -> None:
    path = broken / "model.safetensors"
    path.write_bytes(path.read_bytes()[:3000])
    assert "cannot load" in refusal(broken)


def test_a_config_that_is_no_json(broken: Path) -> None:
    (broken / "config.json").write_text("{")
    assert "config.json" in refusal(broken)


def test_a_device_that_is_not_there(llama: Path) -> None:
    assert "--device tpu9 cannot be used" in refusal(llama, device="tpu9")


def test_a_context_that_memory_cannot_hold() -> None:
    from tapster.runtime.engines.slots.memory import fit_slots

    with pytest.raises(ModelError, match=r"8192 tokens takes 3\.0 GiB and 2\.0 GiB are free: lower --context"):
        fit_slots(16, 3 * 2**30, 8192, free_bytes=2 * 2**30)
    assert fit_slots(16, 2**30, 8192, free_bytes=5 * 2**30) == 4
    assert fit_slots(16, 2**20, 8192, free_bytes=5 * 2**30) == 24


def test_settings() -> None:
    with pytest.raises(ConfigError, match="--dtype must be one of float32, bfloat16, float16, not int8"):
        TransformersConfig(dtype="int8")
    with pytest.raises(ConfigError, match="--gpu-layers has no effect on the transformers engine"):
        ENGINES["transformers"].make_config({"gpu_layers": 3})
