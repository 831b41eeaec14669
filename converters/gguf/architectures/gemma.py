"""Gemma 3 (text): norms that add one to their weight, sliding windows in a pattern, two rotary bases."""

import numpy as np

from ....runtime.errors import ConversionError
from .base import GATED, Builder, Row, attention
from .rope import check_rope, read_rope

_LAYERS_OF_27B = 62
"""llama.cpp knows the 27B model by its number of layers, and scales its attention otherwise."""
_DEFAULTS = {
    "max_position_embeddings": 131072,
    "head_dim": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 262208,
}
"""transformers' own: models with images leave them out of the text model's config."""
_USUAL_PATTERN = 6
"""Every sixth layer sees everything: what llama.cpp takes when the file does not say."""


def _plus_one(values: np.ndarray) -> np.ndarray:
    return values + np.float32(1)


_NORMS = (
    Row("attn_norm.weight", "input_layernorm.weight", ("hidden",), compute=_plus_one),
    Row("attn_q_norm.weight", "self_attn.q_norm.weight", ("head",), compute=_plus_one),
    Row("attn_k_norm.weight", "self_attn.k_norm.weight", ("head",), compute=_plus_one),
    Row("post_attention_norm.weight", "post_attention_layernorm.weight", ("hidden",), compute=_plus_one),
    Row("ffn_norm.weight", "pre_feedforward_layernorm.weight", ("hidden",), compute=_plus_one),
    Row("post_ffw_norm.weight", "post_feedforward_layernorm.weight", ("hidden",), compute=_plus_one),
)


def plan_gemma3(build: Builder) -> None:
    config = build.config
    build.read_sizes(**_DEFAULTS)
    _check(build)
    build.set_head_size()
    build.set("attention.layer_norm_rms_epsilon", config.number("rms_norm_eps", 1e-6))
    if "final_logit_softcapping" in config:
        build.set("final_logit_softcapping", config.number("final_logit_softcapping"))
    _set_windows(build)
    _set_ropes(build)
    build.add_embedding(tied_default=True)
    build.add_norm("output_norm.weight", "model.norm.weight", _plus_one)
    build.add_rows((*_NORMS, *attention(rotated=False), *GATED))


def _check(build: Builder) -> None:
    config, sizes = build.config, build.sizes
    why = "llama.cpp's gemma3 computes GELU in its tanh form only"
    config.only("hidden_activation", "gelu_pytorch_tanh", why=why)
    config.only("hidden_act", "gelu_pytorch_tanh", why=why)
    config.only("attention_bias", False, why="llama.cpp's gemma3 has no biases")
    is_27b = sizes["layers"] == _LAYERS_OF_27B
    scalar = sizes["hidden"] // sizes["heads"] if is_27b else sizes["head"]
    if (given := config.number("query_pre_attn_scalar", 256)) != scalar:
        raise ConversionError(
            f"config.json has query_pre_attn_scalar = {given:g}: llama.cpp's gemma3 takes {scalar} with "
            f"{sizes['layers']} layers, and GGUF has no key for it"
        )


def _set_windows(build: Builder) -> None:
    """The window, and which layers look through it where that is not the usual pattern."""
    config, num_layers = build.config, build.sizes["layers"]
    pattern = config.size("sliding_window_pattern", config.size("_sliding_window_pattern", _USUAL_PATTERN))
    types = config.names("layer_types") or [_layer_type(layer, pattern) for layer in range(num_layers)]
    if len(types) != num_layers or not set(types) <= {"sliding_attention", "full_attention"}:
        raise ConversionError(f"config.json has layer_types that {num_layers} layers of gemma3 cannot have: {types}")
    window = config.size("sliding_window", 4096)
    if "sliding_attention" not in types:
        return
    build.set("attention.sliding_window", window)
    if types != [_layer_type(layer, _USUAL_PATTERN) for layer in range(num_layers)]:
        build.set("attention.sliding_window_pattern", np.array([name == "sliding_attention" for name in types]))
        build.notes.append("an unusual pattern of sliding windows: programs older than autumn 2025 ignore it")


def _layer_type(layer: int, pattern: int) -> str:
    return "sliding_attention" if (layer + 1) % pattern else "full_attention"


def _set_ropes(build: Builder) -> None:
    whole = read_rope(build.config, 1_000_000.0, layer_type="full_attention")
    local = read_rope(build.config, 10_000.0, theta_key="rope_local_base_freq", layer_type="sliding_attention")
    check_rope(whole, ("linear",))
    check_rope(local, ())
    if whole.partial != 1 or local.partial != 1:
        raise ConversionError("config.json has a partial_rotary_factor: llama.cpp's gemma3 rotates whole heads")
    build.set_rope(whole)
    if f"{build.architecture}.attention.sliding_window" in build.metadata:
        build.set("rope.freq_base_swa", local.theta)
