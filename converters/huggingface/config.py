"""config.json by GGUF metadata: the tables of the architectures read backwards."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ...runtime.errors import ConversionError
from ..gguf.reader import GGUFTensors
from .families import Family, family_of
from .rope import rope_config

_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
_LARGE_GEMMA_LAYERS = 62
_SPECIAL = {"bos": "bos_token_id", "eos": "eos_token_id", "pad": "padding_token_id"}


class Keys:
    """The metadata of one architecture, with float32 numbers as they were written."""

    def __init__(self, model: GGUFTensors) -> None:
        self.model = model
        self.architecture = str(model.metadata.get("general.architecture"))

    def get(self, key: str, default: Any = None) -> Any:
        found = self.model.metadata.get(f"{self.architecture}.{key}", default)
        return clean(found) if isinstance(found, float) else found

    def number(self, key: str, default: float | None = None) -> Any:
        """ConversionError when there is none, or a list of different ones by layer."""
        found = self.get(key, default)
        if isinstance(found, list) and len(set(found)) == 1:
            found = found[0]
        if isinstance(found, bool) or not isinstance(found, int | float):
            what = "is missing" if found is None else f"is {str(found)[:40]}"
            raise ConversionError(f"{self.model.path}: the metadata key {self.architecture}.{key} {what}")
        return found

    def count(self, key: str, default: int | None = None) -> int:
        """The same for a whole number above zero."""
        found = self.number(key, default)
        if not isinstance(found, int) or found <= 0:
            raise ConversionError(f"{self.model.path}: the metadata key {self.architecture}.{key} is {found}")
        return found

    def has_tensor(self, name: str) -> bool:
        return name in self.model

    @property
    def num_heads(self) -> int:
        return self.count("attention.head_count")

    @property
    def head_dim(self) -> int:
        return self.count("attention.key_length", self.count("embedding_length") // self.num_heads)


def clean(value: float) -> float:
    """The shortest number that is this one in float32: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def model_config(model: GGUFTensors, dtype: str) -> dict[str, Any]:
    """config.json for a model whose weights are stored as ``dtype`` (BF16, F16 or F32)."""
    keys = Keys(model)
    family = family_of(keys.architecture)
    extra = _EXTRA.get(keys.architecture, lambda _: {})
    return {
        "architectures": [family.name],
        "model_type": family.model_type,
        "dtype": _DTYPES[dtype],
        "torch_dtype": _DTYPES[dtype],
        **_sizes(keys, family),
        **family.config,
        **rope_config(keys),
        **special_ids(model),
        **extra(keys),
    }


def special_ids(model: GGUFTensors) -> dict[str, int | None]:
    """Null where the file does not say: transformers' own defaults are another vocabulary's."""
    return {f"{name}_token_id": model.metadata.get(f"tokenizer.ggml.{key}") for name, key in _SPECIAL.items()}


def _sizes(keys: Keys, family: Family) -> dict[str, Any]:
    theirs, ours = family.norm_eps
    return {
        "vocab_size": keys.model["token_embd.weight"].shape[0],
        "hidden_size": keys.count("embedding_length"),
        "intermediate_size": keys.count("feed_forward_length"),
        "num_hidden_layers": keys.count("block_count"),
        "num_attention_heads": keys.num_heads,
        "num_key_value_heads": keys.count("attention.head_count_kv", keys.num_heads),
        "head_dim": keys.head_dim,
        "max_position_embeddings": keys.count("context_length"),
        ours: keys.number(theirs),
        "tie_word_embeddings": not keys.has_tensor("output.weight"),
        "attention_bias": keys.has_tensor("blk.0.attn_q.bias"),
        "mlp_bias": keys.has_tensor("blk.0.ffn_up.bias"),
    }


def _stablelm(keys: Keys) -> dict[str, Any]:
    return {
        "partial_rotary_factor": keys.get("rope.dimension_count", keys.head_dim) / keys.head_dim,
        "use_qkv_bias": keys.has_tensor("blk.0.attn_q.bias"),
        "qk_layernorm": keys.has_tensor("blk.0.attn_q_norm.weight"),
        "use_parallel_residual": not keys.has_tensor("blk.0.ffn_norm.weight"),
    }


def _smollm3(keys: Keys) -> dict[str, Any]:
    """llama.cpp knows one schedule: every fourth layer goes without positions."""
    return {"no_rope_layers": [int((idx + 1) % 4 != 0) for idx in range(keys.count("block_count"))]}


def _gemma3(keys: Keys) -> dict[str, Any]:
    num_layers, window = keys.count("block_count"), keys.get("attention.sliding_window")
    is_large = num_layers == _LARGE_GEMMA_LAYERS
    scalar = keys.count("embedding_length") // keys.num_heads if is_large else keys.head_dim
    values: dict[str, Any] = {"query_pre_attn_scalar": scalar, "attn_logit_softcapping": None}
    values["final_logit_softcapping"] = keys.get("final_logit_softcapping")
    values["sliding_window"] = window or keys.count("context_length")
    values["layer_types"] = ["sliding_attention" if local else "full_attention" for local in _local_layers(keys)]
    return values


def _local_layers(keys: Keys) -> list[bool]:
    """Which layers see only a window: by the file's pattern, else all but every sixth."""
    num_layers = keys.count("block_count")
    pattern = keys.get("attention.sliding_window_pattern", 6)
    if not keys.get("attention.sliding_window"):
        return [False] * num_layers
    if isinstance(pattern, list):
        return [bool(local) for local in pattern[:num_layers]]
    return [pattern == 0 or idx % pattern < pattern - 1 for idx in range(num_layers)]


_EXTRA: dict[str, Callable[[Keys], dict[str, Any]]] = {
    "stablelm": _stablelm,
    "smollm3": _smollm3,
    "gemma3": _gemma3,
}
