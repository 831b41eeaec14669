"""Arcee: Llama with a feed-forward network of ReLU², without a gate."""

from .base import NORMS, UP_DOWN, Builder, attention


def plan_arcee(build: Builder) -> None:
    config = build.config
    build.read_sizes(max_position_embeddings=4096)
    config.only("hidden_act", "relu2", why="llama.cpp's arcee computes ReLU² only")
    config.only("mlp_bias", False, why="llama.cpp's arcee has no biases there")
    config.only("attention_bias", False, why="llama.cpp's arcee has no bias on the attention's output")
    build.need_full_attention()
    build.set_head_size()
    build.set("attention.layer_norm_rms_epsilon", config.number("rms_norm_eps", 1e-5))
    build.set("vocab_size", build.sizes["vocab"])
    build.set("rope.dimension_count", build.sizes["head"])
    build.add_embedding(tied_default=False)
    build.add_norm("output_norm.weight", "model.norm.weight")
    build.read_rope(("linear", "dynamic", "yarn", "llama3"))
    build.add_rows((*NORMS, *attention(rotated=True), *UP_DOWN))
