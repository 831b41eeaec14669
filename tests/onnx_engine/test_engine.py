"""The ONNX engine, against the checkpoint from which its folder was made, computed by transformers."""

from collections.abc import Callable

import pytest
from engine_checks import EngineChecks, Reference
from plain_reference import PlainTransformers
from tiny_checkpoints import TinyCheckpoint


@pytest.fixture
def reference(tiny_checkpoint: Callable[[str], TinyCheckpoint]) -> Reference:
    return PlainTransformers(tiny_checkpoint("llama").folder)


class TestEngine(EngineChecks):
    pass
