"""A model with random weights, by the values of a transformers config.

Weights begin as transformers begins the architecture (for Llama: normal with ``initializer_range``, norms one).
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from ...runtime.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

_OURS = ("bos_token_id", "eos_token_id", "pad_token_id")
_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads")


def scratch_model(values: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, *, seed: int) -> PreTrainedModel:
    """In float32; the same ``seed``, the same weights. The vocabulary is the tokenizer's where ``values`` name no
    larger one. ConfigError for a model type or a value that transformers does not know, or that makes no model."""
    import torch

    config = scratch_config(values, len(tokenizer), {name: getattr(tokenizer, name) for name in _OURS})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model_of(config)


def model_of(config: PreTrainedConfig) -> PreTrainedModel:
    """With random weights, in float32. ConfigError for values that make no model."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except (ValueError, RuntimeError, TypeError, ZeroDivisionError, AttributeError) as error:
        raise ConfigError(f"student.scratch makes no model: {' '.join(str(error).split())[:200]}") from error


def scratch_config(
    values: Mapping[str, Any], vocab_size: int, ids: Mapping[str, int | None] | None = None
) -> PreTrainedConfig:
    """See ``scratch_model``. ``vocab_size`` is the tokenizer's, and so are the ``ids`` of its special tokens."""
    from transformers import CONFIG_MAPPING

    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        near = get_close_matches(str(kind), list(CONFIG_MAPPING), n=1)
        raise ConfigError(
            f"student.scratch.model_type {kind!r} is no model type of transformers"
            + (f": did you mean {near[0]}?" if near else ": write one, such as llama")
        )
    given = {key: value for key, value in values.items() if key != "model_type"}
    try:
        defaults = CONFIG_MAPPING[kind]()
        _require_known(given, defaults, kind)
        config = CONFIG_MAPPING[kind](**{"vocab_size": vocab_size, **dict.fromkeys(_OURS), **(ids or {}), **given})
        _require_sizes(config.get_text_config(), vocab_size)
        return config
    except ConfigError:
        raise
    except Exception as error:  # a config class checks with what it likes: ValueError, TypeError, its own
        raise ConfigError(f"student.scratch: {' '.join(str(error).split())[:200]}") from error


def _require_sizes(config: Any, vocab_size: int) -> None:
    for name in _SIZES:
        if getattr(config, name, 1) < 1:
            raise ConfigError(f"student.scratch.{name} is {getattr(config, name)}: give at least 1")
    if config.vocab_size < vocab_size:
        raise ConfigError(
            f"student.scratch.vocab_size {config.vocab_size} is less than the tokenizer's {vocab_size} tokens"
        )


def _require_known(given: Mapping[str, Any], defaults: Any, kind: str) -> None:
    """transformers keeps a key that it does not know, and does nothing with it."""
    known = {*defaults.to_dict(), *getattr(defaults, "attribute_map", {}), "rope_theta"}
    for key in given:
        if key not in known:
            near = get_close_matches(key, sorted(known), n=1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise ConfigError(f"student.scratch.{key} is no setting of {kind}{hint}")
