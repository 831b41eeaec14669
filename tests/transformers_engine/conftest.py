"""Tiny checkpoints of every architecture, and the engine on a small model that has learnt something."""

import importlib.util
import warnings
from collections.abc import AsyncIterator, Callable
from functools import cache
from pathlib import Path

import pytest
from tiny_checkpoints import TinyCheckpoint, make_checkpoint
from tiny_tokenizer import save_tokenizer

from tapster.runtime.engines.local.engine import LocalEngine
from tapster.runtime.engines.registry import ENGINES
from tapster.runtime.profile import load_profile

for _name in ("torch", "transformers"):
    if importlib.util.find_spec(_name) is None:
        pytest.skip(f"no {_name}: pip install 'tapster[transformers]'", allow_module_level=True)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TinyCheckpoint]:
    """The checkpoint of a recipe of ``tiny_checkpoints``, with a tokenizer trained on the spot."""

    @cache
    def make(recipe: str) -> TinyCheckpoint:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's and transformers' own
            return make_checkpoint(recipe, tmp_path_factory.mktemp("tiny") / f"tiny-{recipe}", save_tokenizer)

    return make


@pytest.fixture
def llama(tiny_checkpoint: Callable[[str], TinyCheckpoint]) -> Path:
    return tiny_checkpoint("llama").folder


@pytest.fixture
async def engine(llama: Path) -> AsyncIterator[LocalEngine]:
    kind = ENGINES["transformers"]
    engine = kind.open(load_profile(llama), kind.make_config({"context": 200, "max_parallel": 16}))
    assert isinstance(engine, LocalEngine)
    yield engine
    engine.close()
