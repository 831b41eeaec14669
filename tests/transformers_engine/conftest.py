"""Tiny checkpoints of every architecture, and the engine on a small model that has learnt something."""

import importlib.util
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tiny_checkpoints import TinyCheckpoint

from tapster.runtime.engines.local.engine import LocalEngine
from tapster.runtime.engines.registry import ENGINES
from tapster.runtime.profile import load_profile

for _name in ("torch", "transformers"):
    if importlib.util.find_spec(_name) is None:
        pytest.skip(f"no {_name}: pip install 'tapster[transformers]'", allow_module_level=True)


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
