"""A checkpoint folder as a slot model, of the kind that its architecture allows."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from transformers.cache_utils import get_layer_types_and_kwargs

from ..local.threads import default_threads
from ..slots.memory import fit_slots
from ..slots.model import SlotModel, check_last_position
from .config import TransformersConfig
from .loading import load_model, quiet_transformers
from .state_model import RecomputingModel, StateModel
from .table_model import TableModel

log = logging.getLogger(__name__)

_TABLE_TYPES = {"full_attention", "sliding_attention"}
_DISLIKES = (RuntimeError, TypeError, ValueError, AttributeError, IndexError, KeyError)
"""What models raise that do not know the way in which they are called."""


def open_model(path: Path, config: TransformersConfig, *, context_length: int, parallel: int) -> SlotModel:
    """Load the model in ``path`` with slots for ``parallel`` running sequences. ModelError, ConfigError."""
    torch.set_num_threads(config.threads or default_threads())
    with quiet_transformers():
        model = load_model(path, config)
        return _slot_model(model, context_length, parallel)


def _slot_model(model: Any, context_length: int, parallel: int) -> SlotModel:
    """The first kind of cache that this architecture computes rightly with."""
    text_config = model.config.get_text_config(decoder=True)
    layer_types = _layer_types(text_config)
    slot_bytes = context_length * _bytes_per_token(text_config, model.dtype)
    slots = fit_slots(parallel, slot_bytes, context_length, _free_bytes(model.device))
    if layer_types is not None:
        table = TableModel(model, layer_types, num_slots=slots, context_length=context_length)
        if _is_ragged_right(table):
            if context_length > (getattr(text_config, "max_position_embeddings", None) or 0):
                check_last_position(table, context_length)
            return table
    state = StateModel(model, num_slots=slots)
    state.continues_chunks = _continues_right(state)
    if state.continues_chunks or _continues_right(state):
        return state
    log.warning(
        "transformers' %s keeps no cache that can be used: each token takes the whole text", type(model).__name__
    )
    return RecomputingModel(model, num_slots=slots)


def _layer_types(config: Any) -> list[str] | None:
    """What each layer's cache is; None unless all of them are plain attention with cells of its own."""
    try:
        layer_types, _ = get_layer_types_and_kwargs(config)
    except (AttributeError, KeyError, TypeError):
        return None
    return layer_types if set(layer_types) <= _TABLE_TYPES else None


def _continues_right(model: StateModel) -> bool:
    """Whether two sequences that take turns get the logits that each gets alone."""
    texts = [[(7 * index + length) % model.vocab_size for index in range(length)] for length in (14, 9)]
    slots = [0, 1] if model.num_slots > 1 else [0]
    try:
        alone = [model.prefill(slot, texts[slot], 0, all_rows=True) for slot in slots]
        parts: list[list[np.ndarray]] = [[] for _ in slots]
        for start, end in ((0, 5), (5, 8), (8, None)):
            for slot in slots:
                parts[slot].append(model.prefill(slot, texts[slot][start:end], start, all_rows=True))
    except _DISLIKES:
        return False
    return all(_is_close(np.concatenate(parts[slot]), alone[slot]) for slot in slots)


def _is_ragged_right(model: TableModel) -> bool:
    """Whether sequences of different lengths in one batch get the logits that each gets alone.

    Architectures are free in what they do with masks and positions; one small batch shows whether this one does what
    the table relies on. A model that does not, or cannot, is run one sequence after the other.
    """
    if model.num_slots < 2:
        return True
    texts = [[index % model.vocab_size for index in range(5, 5 + length)] for length in (3, 8)]  # the least --context
    try:
        for slot, ids in enumerate(texts):
            model.prefill(slot, ids[:-1], 0)
        together = model.decode([0, 1], [ids[-1] for ids in texts], [len(ids) - 1 for ids in texts])
        alone = np.concatenate([model.prefill(slot, ids, 0).copy() for slot, ids in enumerate(texts)])
    except _DISLIKES:
        return False
    return _is_close(together, alone)


def _is_close(logits: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.abs(logits - expected).max() <= 0.02 * (np.abs(expected).max() or 1))


def _bytes_per_token(config: Any, dtype: torch.dtype) -> int:
    """Keys and values of one token, about right for every architecture."""
    heads = getattr(config, "num_attention_heads", 1)
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return 2 * config.num_hidden_layers * kv_heads * head_dim * dtype.itemsize


def _free_bytes(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
