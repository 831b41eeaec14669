"""ONNX folders that the tests share: a tiny one of every form of every architecture, made once, and their logits."""

import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from unittest.mock import patch

import pytest
from onnx_recipes import EXTRA_RECIPES
from tiny_checkpoints import RECIPES, TinyCheckpoint

from tapster.converters.checkpoint.checkpoint import open_checkpoint
from tapster.converters.folder import FolderReport
from tapster.converters.onnx.options import OnnxOptions
from tapster.converters.onnx.write import write_onnx


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_checkpoint: Callable[[str], TinyCheckpoint]) -> Callable[[str], TinyCheckpoint]:
    """With recipes of this room's own."""

    def make(recipe: str) -> TinyCheckpoint:
        with patch.dict(RECIPES, EXTRA_RECIPES):
            return tiny_checkpoint(recipe)

    return make


@pytest.fixture(scope="session")
def onnx_folder(
    tiny_checkpoint: Callable[[str], TinyCheckpoint], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Path, FolderReport]]:
    """A recipe written with the given options, and the report of it."""
    for name in ("onnx_ir", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"no {name}: pip install 'tapster[onnx]'")

    @cache
    def make(recipe: str, type_name: str, **options: object) -> tuple[Path, FolderReport]:
        folder = tmp_path_factory.mktemp("onnx") / f"{recipe}-{type_name}"
        folder.mkdir()
        checkpoint = open_checkpoint(tiny_checkpoint(recipe).folder)
        return folder, write_onnx(checkpoint, folder, OnnxOptions(type=type_name, **options))  # type: ignore[arg-type]  # words of the tests

    return make
