"""StableLM: LayerNorm with biases, part of each head rotated; the 12B form norms queries and keys of each head by
itself and computes attention and feed-forward network side by side."""

import numpy as np

from ....runtime.errors import ConversionError
from ..plan import TensorPlan
from .base import GATED, Builder, Row, attention, attention_biases
from .rope import check_rope, read_rope

_FIRST_NORM = (
    Row("attn_norm.weight", "input_layernorm.weight", ("hidden",)),
    Row("attn_norm.bias", "input_layernorm.bias", ("hidden",)),
)
_SECOND_NORM = (
    Row("ffn_norm.weight", "post_attention_layernorm.weight", ("hidden",)),
    Row("ffn_norm.bias", "post_attention_layernorm.bias", ("hidden",)),
)


def plan_stablelm(build: Builder) -> None:
    config = build.config
    build.read_sizes(max_position_embeddings=4096)
    build.need_plain_heads()
    build.need_silu()
    build.need_full_attention()
    config.only("rotary_scaling_factor", 1, why="llama.cpp's stablelm scales no rotary angles")
    build.set("attention.layer_norm_epsilon", config.number("norm_eps", config.number("layer_norm_eps", 1e-5)))
    _set_rope(build)
    build.add_embedding(tied_default=False, needs_output=True)
    build.add_norm("output_norm.weight", "model.norm.weight")
    build.add_norm("output_norm.bias", "model.norm.bias")
    build.add_rows((*_FIRST_NORM, *attention(rotated=False), *GATED))
    if config.flag("use_qkv_bias", False):
        build.add_rows(attention_biases(rotated=False))
    if config.flag("qk_layernorm", False):
        _add_head_norms(build)
    is_parallel = config.flag("use_parallel_residual", False)
    build.set("use_parallel_residual", is_parallel)
    if not is_parallel:
        build.add_rows(_SECOND_NORM)


def _set_rope(build: Builder) -> None:
    rope = read_rope(build.config, partial=build.config.number("rope_pct", 0.25))
    check_rope(rope, ())
    num_rotated = int(rope.partial * build.sizes["head"])
    if num_rotated % 2 or not 2 <= num_rotated <= build.sizes["head"]:
        raise ConversionError(
            f"config.json has partial_rotary_factor = {rope.partial:g}, which is {num_rotated} of a head's "
            f"{build.sizes['head']} dimensions: an even number is needed"
        )
    build.set("rope.dimension_count", num_rotated)
    build.set_rope(rope)


def _add_head_norms(build: Builder) -> None:
    """One vector for each head, stacked into (heads, head size)."""
    for layer in range(build.sizes["layers"]):
        for letter, heads in (("q", build.sizes["heads"]), ("k", build.sizes["kv_heads"])):
            names = (f"model.layers.{layer}.self_attn.{letter}_layernorm.norms.{head}.weight" for head in range(heads))
            sources = tuple(build.tensors.take(name, (build.sizes["head"],)) for name in names)
            shape = (heads, build.sizes["head"])
            name = f"blk.{layer}.attn_{letter}_norm.weight"
            build.plans.append(TensorPlan(name, shape, sources, lambda *rows: np.stack(rows), keep="F32"))
