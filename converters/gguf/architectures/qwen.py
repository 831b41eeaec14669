"""Qwen2 (biases on query, key and value) and Qwen3 (normed queries and keys). Both rotate halves, as llama.cpp does."""

from .base import GATED, NORMS, Builder, Row, attention, attention_biases

_QK_NORMS = (
    Row("attn_q_norm.weight", "self_attn.q_norm.weight", ("head",)),
    Row("attn_k_norm.weight", "self_attn.k_norm.weight", ("head",)),
)


def plan_qwen2(build: Builder) -> None:
    build.read_sizes(max_position_embeddings=32768)
    build.need_plain_heads()
    _add_decoder(build)
    build.add_rows(attention_biases(rotated=False))


def plan_qwen3(build: Builder) -> None:
    build.read_sizes(max_position_embeddings=32768, head_dim=128)
    build.config.only("attention_bias", False, why="llama.cpp's qwen3 has no biases")
    build.set_head_size()
    _add_decoder(build)
    build.add_rows(_QK_NORMS)


def _add_decoder(build: Builder) -> None:
    build.need_silu()
    build.need_full_attention(window_default=False, first_key="max_window_layers", absent_window=4096)
    build.set("attention.layer_norm_rms_epsilon", build.config.number("rms_norm_eps", 1e-6))
    build.read_rope(("linear", "dynamic", "yarn"))
    build.add_embedding(tied_default=False)
    build.add_norm("output_norm.weight", "model.norm.weight")
    build.add_rows((*NORMS, *attention(rotated=False), *GATED))
