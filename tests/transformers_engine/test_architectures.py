"""Every architecture gives transformers' own logits: in chunks, in ragged batches, after copies and detours."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tiny_checkpoints import RECIPES, TinyCheckpoint

from tapster.runtime.engines.slots.model import SlotModel
from tapster.runtime.engines.transformers.config import TransformersConfig

RECURRENT = [name for name in RECIPES if name.startswith("kda")]


def open_checkpoint(folder: Path) -> SlotModel:
    from tapster.runtime.engines.transformers.open_model import open_model

    return open_model(folder, TransformersConfig(threads=1), context_length=128, parallel=4)


def assert_close(logits: np.ndarray, expected: np.ndarray) -> None:
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, atol=2e-4 * np.abs(expected).max())


@pytest.fixture(params=list(RECIPES))
def tiny(request: pytest.FixtureRequest, tiny_checkpoint: Callable[[str], TinyCheckpoint]) -> TinyCheckpoint:
    return tiny_checkpoint(request.param)


def test_a_text_in_chunks(tiny: TinyCheckpoint) -> None:
    model = open_checkpoint(tiny.folder)
    for bounds in ([0, 100], [0, 37, 38, 90, 100]):
        for start, end in pairwise(bounds):
            rows = model.prefill(1, tiny.tokens[start:end], start, all_rows=True)
            assert_close(rows, tiny.logits[start:end])


def test_ragged_batches(tiny: TinyCheckpoint) -> None:
    model, tokens = open_checkpoint(tiny.folder), tiny.tokens
    lengths = {0: 5, 1: 60, 2: 21, 3: 60}
    for slot, length in lengths.items():
        assert_close(model.prefill(slot, tokens[:length], 0), tiny.logits[length - 1 : length])
    for slots in ([0, 1, 2, 3], [3, 1], [2, 0, 3], [1, 3], [0], [3, 2, 1, 0], [1, 2]):
        positions = [lengths[slot] for slot in slots]
        rows = model.decode(slots, [tokens[position] for position in positions], positions)
        assert_close(rows, tiny.logits[positions])
        for slot in slots:
            lengths[slot] += 1


def test_a_copied_slot_goes_its_own_way(tiny: TinyCheckpoint) -> None:
    model, tokens = open_checkpoint(tiny.folder), tiny.tokens
    model.prefill(0, tokens[:40], 0)
    model.copy(0, 2, 40)
    model.prefill(0, [7, 7, 7], 40)
    assert_close(model.prefill(2, tokens[40:45], 40), tiny.logits[44:45])
    rows = model.decode([2], [tokens[45]], [45])
    assert_close(rows, tiny.logits[45:46])


def test_kinds_of_cache(tiny: TinyCheckpoint) -> None:
    model, tokens = open_checkpoint(tiny.folder), tiny.tokens
    assert model.can_rewind == (tiny.folder.name.removeprefix("tiny-") not in RECURRENT)
    model.prefill(0, tokens[:50], 0)
    model.prefill(0, [9, 9, 9, 9], 0 if not model.can_rewind else 20)
    start = 0 if not model.can_rewind else 20
    assert_close(model.prefill(0, tokens[start:60], start), tiny.logits[59:60])


@pytest.mark.parametrize("recipe", ["llama", "gemma3"])
def test_other_processors_and_types(recipe: str, tiny_checkpoint: Callable[[str], TinyCheckpoint]) -> None:
    from tapster.runtime.engines.transformers.open_model import open_model

    tiny = tiny_checkpoint(recipe)
    config = TransformersConfig(threads=1, dtype="bfloat16", device="cpu")
    model = open_model(tiny.folder, config, context_length=128, parallel=2)
    rows = model.prefill(0, tiny.tokens, 0, all_rows=True)
    assert rows.dtype == np.float32
    assert 0 < np.abs(rows - tiny.logits).max() < 0.15 * np.abs(tiny.logits).max()
