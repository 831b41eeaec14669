"""Tensors byte for byte, and metadata, as llama.cpp's own converter writes them. Nothing is compared without it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_checkpoints import TinyCheckpoint, edit_json

from tapster.converters.gguf.reader import GGUFTensors
from tapster.runtime.gguf_header import read_header

RECIPES = (
    *("llama", "llama-biases", "llama-linear", "llama-yarn", "mistral", "smollm3", "qwen2", "qwen3"),
    *("stablelm", "arcee", "gemma3", "kda-full"),
)
"""Not StableLM's 12B form, which the other converter fails on, and not what it has no way to write."""
TYPES = ("BF16", "F16", "Q8_0")
COMPUTED = ("rope_freqs.weight", ".ssm_a")
"""Powers and exponentials: the last bit is the C library's."""

OURS = ("tokenizer.ggml.eot_token_id", "tokenizer.ggml.add_", "stablelm.rope.freq_base")
"""Keys that only we write: the second end of a turn, that no tokens are put around a text, StableLM's rotary base."""
GUESSED = ("general.basename", "general.finetune", "general.version", "general.organization")
"""Cut from the folder's name by the other converter, which is no better than the name."""
NEVER_READ = ("kimi-linear.expert", "kimi-linear.leading_dense_block_count", "kimi-linear.attention.value_length")
"""Of experts that are not there, and of values that MLA keeps compressed."""


@pytest.fixture(scope="module")
def oracle(
    llama_cpp_tree: Path,
    tiny_checkpoint: Callable[[str], TinyCheckpoint],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with RECIPE-TYPE.gguf by llama.cpp's converter."""
    folder = tmp_path_factory.mktemp("oracle")
    folders = {recipe: tiny_checkpoint(recipe).folder for recipe in RECIPES}
    folders["kda-full"] = _as_moonshot(folders["kda-full"], folder / "tiny-kda-full")
    jobs = [
        [str(folders[recipe]), kind.lower(), str(folder / f"{recipe}-{kind}.gguf")]
        for recipe in RECIPES
        for kind in TYPES
    ]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    program = Path(__file__).with_name("run_oracle.py")
    command = [sys.executable, str(program), str(llama_cpp_tree), str(folder / "jobs.json")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""}, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("recipe", RECIPES)
def test_tensors_are_those_of_llama_cpp(recipe: str, oracle: Path, tiny_gguf: Callable[[str, str], Path]) -> None:
    for kind in TYPES:
        ours, theirs = GGUFTensors(tiny_gguf(recipe, kind)), GGUFTensors(oracle / f"{recipe}-{kind}.gguf")
        assert set(ours) == set(theirs)
        for name, tensor in theirs.items():
            assert (ours[name].shape, ours[name].type) == (tensor.shape, tensor.type), name
            if name.endswith(COMPUTED):
                np.testing.assert_allclose(ours[name].float32(), tensor.float32(), rtol=1e-6)
            else:
                assert np.array_equal(ours[name].raw(), tensor.raw()), (kind, name)


@pytest.mark.parametrize("recipe", RECIPES)
def test_metadata_is_that_of_llama_cpp(recipe: str, oracle: Path, tiny_gguf: Callable[[str, str], Path]) -> None:
    ours = dict(_compared(tiny_gguf(recipe, "BF16")))
    theirs = dict(_compared(oracle / f"{recipe}-BF16.gguf"))
    assert ours == theirs


def _compared(path: Path) -> Iterator[tuple[str, Any]]:
    for key, value in read_header(path).metadata.items():
        if not key.startswith((*OURS, *GUESSED, *NEVER_READ)):
            yield key, pytest.approx(value, rel=1e-6) if isinstance(value, float) else value


def _as_moonshot(folder: Path, target: Path) -> Path:
    """The same checkpoint with the names and keys of Moonshot's, which transformers reads but does not save."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, target)
    tensors = load_file(folder / "model.safetensors")
    renamed = {name.replace("block_sparse_moe", "mlp"): tensor for name, tensor in tensors.items()}
    save_file(renamed, target / "model.safetensors", {"format": "pt"})
    linear = {"head_dim": 32, "num_heads": 2, "short_conv_kernel_size": 4, "kda_layers": [1], "full_attn_layers": [2]}
    edit_json(target / "config.json", linear_attn_config=linear, first_k_dense_replace=2)
    return target
