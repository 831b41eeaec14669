"""A config.json with anything in it gives a plan or a ConversionError, never anything else."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_checkpoints import TinyCheckpoint

from tapster.converters.checkpoint.checkpoint import Checkpoint, open_checkpoint
from tapster.converters.gguf.architectures import embedding_rows, plan_model
from tapster.converters.tokenizer.read import read_vocabulary
from tapster.converters.tokenizer.vocabulary import Vocabulary
from tapster.runtime.errors import ConversionError

RECIPES = ("llama-biases", "llama-yarn", "smollm3", "qwen2", "stablelm-12b", "arcee", "gemma3-pattern", "kda-full")
KEYS = (
    *("rope_theta", "rope_scaling", "partial_rotary_factor", "use_sliding_window", "sliding_window", "head_dim"),
    *("max_window_layers", "no_rope_layers", "linear_attn_config", "first_k_dense_replace", "text_config"),
)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 200), st.sampled_from([10**30, 1 << 40]), st.floats(), st.text(max_size=9)
)
names = st.sampled_from(
    ["full_attention", "sliding_attention", "linear_attention", "dense", "linear", "yarn", "llama3"]
)
ropes = st.dictionaries(
    st.sampled_from(["rope_type", "factor", "rope_theta", "attention_factor", "full_attention", "head_dim"]),
    scalars | names,
    max_size=4,
)
values = st.one_of(scalars, names, st.lists(scalars | names, max_size=6), ropes)


@pytest.fixture(scope="module")
def opened(tiny_checkpoint: Callable[[str], TinyCheckpoint]) -> Callable[[str], tuple[Checkpoint, Vocabulary]]:
    @cache
    def open_(recipe: str) -> tuple[Checkpoint, Vocabulary]:
        checkpoint = open_checkpoint(tiny_checkpoint(recipe).folder)
        return checkpoint, read_vocabulary(checkpoint, embedding_rows(checkpoint))

    return open_


@pytest.mark.parametrize("recipe", RECIPES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_config(recipe: str, opened: Callable[[str], tuple[Checkpoint, Vocabulary]], data: st.DataObject) -> None:
    checkpoint, vocabulary = opened(recipe)
    keys = st.sampled_from([*checkpoint.config, *KEYS])
    changes: dict[str, Any] = data.draw(st.dictionaries(keys, values, min_size=1, max_size=3))
    bare = replace(checkpoint, config={**checkpoint.config, **changes}, chat_templates={})
    with suppress(ConversionError):
        plan = plan_model(bare, vocabulary)
        assert all(tensor.elements()[0].size for tensor in plan.tensors if not tensor.constant)
