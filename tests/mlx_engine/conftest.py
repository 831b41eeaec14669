"""MLX folders that the tests share: tiny ones of every architecture, made once."""

import importlib.util
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from tiny_checkpoints import TinyCheckpoint

from tapster.converters.checkpoint.checkpoint import open_checkpoint
from tapster.converters.folder import FolderReport
from tapster.converters.mlx.options import MlxOptions
from tapster.converters.mlx.write import write_mlx
from tapster.converters.progress import Silent

for _name in ("mlx", "mlx_lm", "torch", "transformers"):
    if importlib.util.find_spec(_name) is None:
        pytest.skip(f"no {_name}: pip install 'tapster[dev]'", allow_module_level=True)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own imports'
    import mlx_lm  # noqa: F401 - for the warnings of its import

MlxFolder = Callable[..., tuple[Path, FolderReport]]


@pytest.fixture(scope="session")
def mlx_folder(tiny_checkpoint: Callable[[str], TinyCheckpoint], tmp_path_factory: pytest.TempPathFactory) -> MlxFolder:
    """A recipe written in a type and a group size, and the report of it."""

    @cache
    def make(recipe: str, type_name: str, group_size: int | None = None) -> tuple[Path, FolderReport]:
        folder = tmp_path_factory.mktemp("mlx") / f"{recipe}-{type_name}"
        checkpoint = open_checkpoint(tiny_checkpoint(recipe).folder)
        return folder, write_mlx(checkpoint, folder, MlxOptions(type_name, group_size), Silent())

    return make
