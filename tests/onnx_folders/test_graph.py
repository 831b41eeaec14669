"""Every form of every architecture against transformers: whole prompts, token by token, ragged batches, in place."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from cached_session import CachedSession
from onnx_recipes import ALL_RECIPES
from tiny_checkpoints import TinyCheckpoint

Checkpoints = Callable[[str], TinyCheckpoint]
Folders = Callable[..., tuple[Path, object]]


def _close(got: np.ndarray, expected: np.ndarray) -> None:
    """Equal up to the order of float32 sums."""
    np.testing.assert_allclose(got, expected, rtol=0, atol=3e-6 * max(1.0, float(np.abs(expected).max())))


@pytest.mark.parametrize("recipe", ALL_RECIPES)
def test_logits_are_those_of_transformers(recipe: str, tiny_checkpoint: Checkpoints, onnx_folder: Folders) -> None:
    tiny = tiny_checkpoint(recipe)
    session = CachedSession(onnx_folder(recipe, "fp32")[0])
    _close(session.run(np.array([tiny.tokens]), [len(tiny.tokens)])[0], tiny.logits)


@pytest.mark.parametrize("recipe", ALL_RECIPES)
def test_in_place_by_chunks_and_tokens(recipe: str, tiny_checkpoint: Checkpoints, onnx_folder: Folders) -> None:
    tiny = tiny_checkpoint(recipe)
    session = CachedSession(onnx_folder(recipe, "fp32")[0], capacity=128)
    bounds = [0, 40, 70, *range(71, len(tiny.tokens) + 1)]
    rows = [session.run(np.array([tiny.tokens[start:stop]]), [stop])[0] for start, stop in pairwise(bounds)]
    _close(np.concatenate(rows), tiny.logits)


@pytest.mark.parametrize("recipe", ["llama", "stablelm-12b", "mistral-window", "smollm3-schedule", "qwen3"])
@pytest.mark.parametrize("capacity", [0, 64])
def test_ragged_batch(recipe: str, capacity: int, tiny_checkpoint: Checkpoints, onnx_folder: Folders) -> None:
    """Prompts of 5 and 21 tokens padded at the right, then both go on a token at a time, each at its own place."""
    tiny = tiny_checkpoint(recipe)
    session = CachedSession(onnx_folder(recipe, "fp32")[0], batch=2, capacity=capacity)
    lengths, most = [5, 21], 21
    prompts = np.array([tiny.tokens[:length] + [0] * (most - length) for length in lengths])
    logits = session.run(prompts, lengths)
    for row, length in enumerate(lengths):
        _close(logits[row, :length], tiny.logits[:length])
    for _ in range(30):
        tokens = np.array([[tiny.tokens[length]] for length in lengths])
        lengths = [length + 1 for length in lengths]
        logits = session.run(tokens, lengths)
        for row, length in enumerate(lengths):
            _close(logits[row, 0], tiny.logits[length - 1])


def test_only_the_last_row_of_logits(tiny_checkpoint: Checkpoints, onnx_folder: Folders) -> None:
    tiny = tiny_checkpoint("llama")
    session = CachedSession(onnx_folder("llama", "fp32")[0])
    logits = session.run(np.array([tiny.tokens]), [len(tiny.tokens)], logits_from=np.array([-1]))
    assert logits.shape == (1, 1, tiny.logits.shape[1])
    _close(logits[0], tiny.logits[-1:])


@pytest.mark.parametrize("recipe", ["llama", "llama-linear", "stablelm-12b", "qwen2"])
@pytest.mark.parametrize(
    ("type_name", "options", "most"),
    [("fp16", {}, 0.01), ("int8", {}, 0.05), ("int4", {}, 0.4), ("int4", {"group_size": 128, "method": "rtn"}, 0.5)],
)
def test_small_types_stay_close(
    recipe: str,
    type_name: str,
    options: dict[str, object],
    most: float,
    tiny_checkpoint: Checkpoints,
    onnx_folder: Folders,
) -> None:
    """Relative to the size of the logits. Tied and untied, with biases and without, and hidden sizes below a block."""
    tiny = tiny_checkpoint(recipe)
    session = CachedSession(onnx_folder(recipe, type_name, **options)[0])
    logits = session.run(np.array([tiny.tokens]), [len(tiny.tokens)])[0]
    error = np.sqrt(np.square(logits - tiny.logits).mean() / np.square(tiny.logits).mean())
    assert 0 < error < most
