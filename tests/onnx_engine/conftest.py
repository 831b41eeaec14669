"""A tiny checkpoint as ONNX folders, made by our converter, and the engine on it."""

import importlib.util
from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path

import pytest
from tiny_checkpoints import TinyCheckpoint

from tapster.converters.checkpoint.checkpoint import open_checkpoint
from tapster.runtime.engines.local.engine import LocalEngine
from tapster.runtime.engines.registry import ENGINES
from tapster.runtime.profile import load_profile

for _name in ("onnxruntime", "onnx_ir", "torch", "transformers"):
    if importlib.util.find_spec(_name) is None:
        pytest.skip(f"no {_name}: pip install 'tapster[onnx,transformers]'", allow_module_level=True)


@pytest.fixture(scope="session")
def onnx_folder(
    tiny_checkpoint: Callable[[str], TinyCheckpoint], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Path]:
    """The ONNX folder of a recipe in one of the converter's types."""
    from tapster.converters.onnx.options import OnnxOptions
    from tapster.converters.onnx.write import write_onnx

    @cache
    def make(recipe: str, type_name: str = "fp32") -> Path:
        folder = tmp_path_factory.mktemp("onnx") / f"tiny-{recipe}-onnx-{type_name}"
        folder.mkdir()
        write_onnx(open_checkpoint(tiny_checkpoint(recipe).folder), folder, OnnxOptions(type=type_name))
        return folder

    return make


@pytest.fixture
async def engine(onnx_folder: Callable[[str], Path]) -> AsyncIterator[LocalEngine]:
    kind = ENGINES["onnx"]
    engine = kind.open(load_profile(onnx_folder("llama")), kind.make_config({"context": 200, "max_parallel": 16}))
    assert isinstance(engine, LocalEngine)
    yield engine
    engine.close()
