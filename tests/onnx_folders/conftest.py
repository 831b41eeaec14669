"""ONNX folders that the tests share: a tiny one of every form of every architecture, made once, and their logits."""

import importlib.util
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from unittest.mock import patch

import pytest
from onnx_recipes import EXTRA_RECIPES
from tiny_checkpoints import RECIPES, TinyCheckpoint, make_checkpoint
from tiny_tokenizer import save_tokenizer

from tapster.converters.checkpoint.checkpoint import open_checkpoint
from tapster.converters.folder import FolderReport
from tapster.converters.onnx.options import OnnxOptions
from tapster.converters.onnx.write import write_onnx


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TinyCheckpoint]:
    """The checkpoint of a recipe, and transformers' logits for it."""
    for name in ("torch", "transformers"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"no {name}, which makes the checkpoints: pip install 'tapster[dev]'")

    @cache
    def make(recipe: str) -> TinyCheckpoint:
        folder = tmp_path_factory.mktemp("tiny") / f"tiny-{recipe}"
        with warnings.catch_warnings(), patch.dict(RECIPES, EXTRA_RECIPES):
            warnings.simplefilter("ignore")  # torch's and transformers' own
            return make_checkpoint(recipe, folder, save_tokenizer)

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
