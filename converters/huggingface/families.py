"""The architectures that can be written back: what transformers calls them and their tensors."""

from dataclasses import dataclass, field
from typing import Any

from ...runtime.errors import ConversionError

_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_FOUR_NORMS = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_layernorm.norms", "attn_k_norm": "self_attn.k_layernorm.norms"}


@dataclass(frozen=True)
class Family:
    """One architecture. ``layer`` maps the tensors of a layer; ``config`` are values that every model of it has.

    ``is_permuted``: the rows of q and k stand in the order of GGUF's rotary embedding, which pairs neighbours.
    ``norm_offset``: what GGUF's norms have more than transformers'. ``norm_eps``: the key of the norms' epsilon.
    """

    name: str
    model_type: str
    layer: dict[str, str] = field(default_factory=lambda: _LAYER)
    is_permuted: bool = False
    norm_offset: float = 0.0
    norm_eps: tuple[str, str] = ("attention.layer_norm_rms_epsilon", "rms_norm_eps")
    config: dict[str, Any] = field(default_factory=dict)


FAMILIES = {
    "llama": Family("LlamaForCausalLM", "llama", is_permuted=True, config={"hidden_act": "silu"}),
    "qwen2": Family("Qwen2ForCausalLM", "qwen2", config={"hidden_act": "silu", "use_sliding_window": False}),
    "qwen3": Family("Qwen3ForCausalLM", "qwen3", config={"hidden_act": "silu", "use_sliding_window": False}),
    "smollm3": Family(
        "SmolLM3ForCausalLM",
        "smollm3",
        is_permuted=True,
        config={"hidden_act": "silu", "use_sliding_window": False, "no_rope_layer_interval": 4},
    ),
    "arcee": Family("ArceeForCausalLM", "arcee", is_permuted=True, config={"hidden_act": "relu2"}),
    "stablelm": Family(
        "StableLmForCausalLM",
        "stablelm",
        layer=_LAYER | _HEAD_NORMS,
        norm_eps=("attention.layer_norm_epsilon", "layer_norm_eps"),
        config={"hidden_act": "silu"},
    ),
    "gemma3": Family(
        "Gemma3ForCausalLM",
        "gemma3_text",
        layer=_LAYER | _FOUR_NORMS,
        norm_offset=1.0,
        config={"hidden_activation": "gelu_pytorch_tanh"},
    ),
}


def family_of(architecture: str | None) -> Family:
    """ConversionError for an architecture that is not in the table."""
    if architecture not in FAMILIES:
        raise ConversionError(
            f"the architecture {architecture!r} cannot be written as a Hugging Face folder; "
            f"known are {', '.join(FAMILIES)}"
        )
    return FAMILIES[architecture]
