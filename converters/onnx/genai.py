"""``genai_config.json``: what onnxruntime-genai wants to know about a folder."""

from typing import Any

from ..checkpoint.checkpoint import Checkpoint
from .decoder import Decoder

_TYPES = {"llama": "llama", "mistral": "mistral", "smollm3": "smollm3", "qwen2": "qwen2", "qwen3": "qwen3"}
"""onnxruntime-genai takes only types that it knows. To all it does the same, so the others pass as Llama."""


def genai_config(decoder: Decoder, checkpoint: Checkpoint) -> dict[str, Any]:
    """Model, names of inputs and outputs, and greedy search up to the whole context."""
    eos = special_ids(checkpoint, "eos_token_id")
    bos = special_ids(checkpoint, "bos_token_id")
    pad = special_ids(checkpoint, "pad_token_id")
    return {
        "model": {
            "type": _TYPES.get(decoder.architecture, "llama"),
            "bos_token_id": bos[0] if bos else (eos[0] if eos else 0),
            "eos_token_id": eos,
            "pad_token_id": pad[0] if pad else (eos[0] if eos else 0),
            "vocab_size": decoder.vocabulary,
            "context_length": decoder.context,
            "decoder": _decoder_config(decoder),
        },
        "search": {
            "max_length": decoder.context,
            "do_sample": False,
            "past_present_share_buffer": True,
        },
    }


def special_ids(checkpoint: Checkpoint, key: str) -> list[int]:
    """The ids that generation_config.json and config.json give for a role, each once, the former's first."""
    found: list[Any] = []
    for config in (checkpoint.generation_config, checkpoint.config):
        value = config.get(key)
        found += value if isinstance(value, list) else [value]
    return list(dict.fromkeys(token_id for token_id in found if type(token_id) is int and token_id >= 0))


def _decoder_config(decoder: Decoder) -> dict[str, Any]:
    return {
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
        "filename": "model.onnx",
        "head_size": decoder.head_size,
        "hidden_size": decoder.hidden,
        "num_attention_heads": decoder.num_heads,
        "num_hidden_layers": len(decoder.layers),
        "num_key_value_heads": decoder.num_kv_heads,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
    }
