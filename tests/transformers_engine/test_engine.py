"""The transformers engine, against ``model.generate`` and a plain forward."""

from pathlib import Path

import pytest
from engine_checks import EngineChecks, Reference
from plain_reference import PlainTransformers


@pytest.fixture
def reference(llama: Path) -> Reference:
    return PlainTransformers(llama)


class TestEngine(EngineChecks):
    pass
