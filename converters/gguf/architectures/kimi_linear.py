"""Kimi Linear without experts: layers of Kimi Delta Attention (KDA), and of full attention (MLA) where there are any.

llama.cpp's ``kimi-linear`` cannot run a model of KDA layers only (it gives inputs of the attention no memory), so such
a student gets one more layer at the end: full attention whose output is zero, and a feed-forward network whose output
is zero, which leaves the residual stream as it is, bit for bit. A student whose feed-forward network is ReLU² without
a gate gets a gate: SiLU(βu)·u/β tends to ReLU(u)² with β, and is within 0.48/β² of it everywhere.

F16 holds every matrix of such a student. What it costs comes from llama.cpp, which rounds the other side of a product
with F16 weights to F16: the same rounding in PyTorch costs as much. A student that was hardly trained makes much of it.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from ....runtime.errors import ConversionError
from ..plan import Compute, TensorPlan
from .base import GATED, NORMS, UP_DOWN, Builder, Row, kept_type, rows_to

_BETA = 64.0
"""Of the scaled SwiGLU. The norm before it takes 1/β and the gate β², so that the weights of ``up`` stay as they are:
a power of two is exact in every type, but 1/β would push the scales of small blocks below float16's normal range."""
_IDENTITY = {"lora": 32, "rope": 32, "nope": 32, "value": 32}
"""Sizes of the layer that does nothing: small, and whole blocks of the types that count by 32."""
_SIGMOID_GATE = 2

_KDA = (
    Row("attn_q.weight", "self_attn.q_proj.weight", ("inner", "hidden")),
    Row("attn_k.weight", "self_attn.k_proj.weight", ("inner", "hidden")),
    Row("attn_v.weight", "self_attn.v_proj.weight", ("inner", "hidden")),
    Row("ssm_f_a.weight", "self_attn.f_a_proj.weight", ("kda", "hidden")),
    Row("ssm_f_b.weight", "self_attn.f_b_proj.weight", ("inner", "kda")),
    Row("ssm_dt.bias", "self_attn.dt_bias", ("inner",)),
    Row("ssm_beta.weight", "self_attn.b_proj.weight", ("heads", "hidden")),
    Row("ssm_g_a.weight", "self_attn.g_a_proj.weight", ("kda", "hidden")),
    Row("ssm_g_b.weight", "self_attn.g_b_proj.weight", ("inner", "kda")),
    Row("ssm_norm.weight", "self_attn.o_norm.weight", ("kda",)),
    Row("attn_output.weight", "self_attn.o_proj.weight", ("hidden", "inner")),
)
_MLA = (
    Row("attn_q.weight", "self_attn.q_proj.weight", ("mla_q", "hidden")),
    Row("attn_kv_a_mqa.weight", "self_attn.kv_a_proj_with_mqa.weight", ("mla_kv", "hidden")),
    Row("attn_kv_a_norm.weight", "self_attn.kv_a_layernorm.weight", ("lora",)),
    Row("attn_output.weight", "self_attn.o_proj.weight", ("hidden", "mla_out")),
)
_NO_EXPERTS = (
    *("num_experts", "num_local_experts", "num_experts_per_token", "num_experts_per_tok", "num_shared_experts"),
    *("n_shared_experts", "moe_intermediate_size", "moe_layer_freq", "moe_renormalize", "norm_topk_prob"),
    *("moe_router_activation_func", "routed_scaling_factor", "use_grouped_topk", "num_expert_group", "n_group"),
    *("topk_group", "output_router_logits", "first_k_dense_replace"),
)
_REASONS = {
    "g_b_proj.bias": "llama.cpp's kimi-linear has no bias on the output gate; train the student without it",
    "g_proj": "these are the names of fla's layer, whose output gate has a bias that llama.cpp does not have",
    ".experts.": "mixtures of experts are not converted",
}


def plan_kimi_linear(build: Builder) -> None:
    build.reasons = _REASONS
    is_full = _read_sizes(build)
    relu_squared = _has_relu_squared(build)
    _check(build)
    build.add_embedding(tied_default=False, needs_output=True)
    build.add_norm("output_norm.weight", "model.norm.weight")
    for layer, full in enumerate(is_full):
        _add_mla(build, layer) if full else _add_kda(build, layer)
        _add_feed_forward(build, layer, relu_squared)
    if not any(is_full):
        _add_identity(build, len(is_full))
        is_full.append(True)
        build.notes.append("one layer that changes nothing is appended: llama.cpp needs a layer of full attention")
    if relu_squared:
        build.notes.append("ReLU² is written as a scaled SwiGLU, exact to 1e-4: one more matrix in each layer")
    _set_keys(build, is_full)


def _read_sizes(build: Builder) -> list[bool]:
    """The sizes; returns for each layer whether it is one of full attention."""
    config, sizes = build.config, build.sizes
    linear = config.table("linear_attn_config")
    sizes["layers"] = build.read_layers()
    sizes["hidden"], sizes["ff"] = config.size("hidden_size"), config.size("intermediate_size")
    sizes["vocab"] = config.size("vocab_size")
    sizes["context"] = config.size("max_position_embeddings", config.size("model_max_length", 1048576))
    sizes["kda"] = linear.get("head_dim", config.get("linear_head_dim", 128))
    sizes["heads"] = linear.get("num_heads", config.get("linear_num_heads", 32))
    sizes["conv"] = linear.get("short_conv_kernel_size", config.get("linear_conv_kernel_dim", 4))
    if any(type(sizes[name]) is not int or not 1 <= sizes[name] < 1 << 24 for name in ("kda", "heads", "conv")):
        raise ConversionError(f"config.json has no sound sizes of linear attention: {linear}")
    sizes["inner"] = sizes["heads"] * sizes["kda"]
    is_full = _full_layers(build, linear)
    if any(is_full):
        _read_mla_sizes(build)
    else:
        _ignore_mla(build)
    return is_full


def _full_layers(build: Builder, linear: dict[str, Any]) -> list[bool]:
    """From ``layer_types``, or from Moonshot's lists of layers, which count from one."""
    num_layers = build.sizes["layers"]
    if unknown := set(linear) - {"head_dim", "num_heads", "short_conv_kernel_size", "kda_layers", "full_attn_layers"}:
        raise ConversionError(f"config.json has linear_attn_config.{min(unknown)}, which tapster does not know")
    types = build.config.names("layer_types")
    if types is None and isinstance(full := linear.get("full_attn_layers"), list):
        return [layer + 1 in full for layer in range(num_layers)]
    if types is None:
        return [layer > 0 and layer % 4 == 0 for layer in range(num_layers)]
    if len(types) != num_layers or not set(types) <= {"linear_attention", "full_attention"}:
        raise ConversionError(
            f"config.json has layer_types that {num_layers} layers of kimi-linear cannot have: {types}"
        )
    return [name == "full_attention" for name in types]


def _read_mla_sizes(build: Builder) -> None:
    config, sizes = build.config, build.sizes
    sizes["lora"], sizes["rope"] = config.size("kv_lora_rank", 512), config.size("qk_rope_head_dim", 64)
    sizes["nope"], sizes["value"] = config.size("qk_nope_head_dim", 128), config.size("v_head_dim", 128)
    config.only("q_lora_rank", why="compressed queries are not converted")
    config.only("attention_bias", False, why="llama.cpp's kimi-linear has no biases")
    config.only("mla_use_nope", True, why="llama.cpp's kimi-linear rotates nothing")
    if (heads := config.size("num_attention_heads", 32)) != sizes["heads"]:
        raise ConversionError(
            f"config.json has num_attention_heads = {heads} and {sizes['heads']} heads of linear attention: GGUF has "
            f"one number for both"
        )
    config.ignore("num_key_value_heads", "head_dim", "qk_head_dim")
    _finish_mla_sizes(build)


def _finish_mla_sizes(build: Builder) -> None:
    sizes = build.sizes
    sizes["mla_q"] = sizes["heads"] * (sizes["nope"] + sizes["rope"])
    sizes["mla_kv"], sizes["mla_out"] = sizes["lora"] + sizes["rope"], sizes["heads"] * sizes["value"]


def _ignore_mla(build: Builder) -> None:
    build.config.ignore("kv_lora_rank", "q_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")
    build.config.ignore("num_attention_heads", "num_key_value_heads", "head_dim", "qk_head_dim", "mla_use_nope")
    build.config.ignore("attention_bias", "rope_theta", "rope_parameters", "rope_scaling")
    build.sizes |= _IDENTITY
    _finish_mla_sizes(build)


def _has_relu_squared(build: Builder) -> bool:
    """Whether the feed-forward network is ReLU² without a gate. The convolutions are SiLU in any case."""
    is_gated = f"model.layers.0.{_feed_forward_name(build, 0)}.gate_proj.weight" in build.tensors
    act = build.config.get("mlp_hidden_act", build.config.get("hidden_act", "silu"))
    if act in ("silu", "swish") and is_gated:
        return False
    if act == "relu2" and not is_gated:
        return True
    raise ConversionError(
        f"config.json has hidden_act = {act!r} and the checkpoint a feed-forward network "
        f"{'with' if is_gated else 'without'} a gate: llama.cpp's kimi-linear has SiLU with a gate, and tapster can "
        f"write relu2 without one"
    )


def _check(build: Builder) -> None:
    config, num_layers = build.config, build.sizes["layers"]
    types = config.names("mlp_layer_types")
    num_dense = config.number("first_k_dense_replace", 1) if types is None else types.count("dense")
    if num_dense < num_layers and config.get("num_experts", 256):
        raise ConversionError(
            f"config.json has a mixture of experts in {num_layers - num_dense:g} of {num_layers} layers: only dense "
            f"kimi_linear models are converted"
        )
    config.ignore(*_NO_EXPERTS, "rope_theta", "rope_parameters", "rope_scaling", "original_max_position_embeddings")
    config.only("allow_neg_eigval", False, why="llama.cpp's kimi-linear has no negative eigenvalues")
    config.only("expand_v", 1, why="llama.cpp's kimi-linear has values as wide as keys")


def _add_kda(build: Builder, layer: int) -> None:
    sizes, prefix = build.sizes, f"model.layers.{layer}.self_attn."
    for row in _KDA:
        build.add_row(row, layer)
    inner, width = sizes["inner"], sizes["conv"]
    for letter in "qkv":
        source = build.tensors.take(f"{prefix}{letter}_conv1d.weight", (inner, width), (inner, 1, width))
        _add(build, f"blk.{layer}.ssm_conv1d_{letter}.weight", source, (1, inner, 1, width))
    decay = build.tensors.take_elements(f"{prefix}A_log", sizes["heads"])
    _add(build, f"blk.{layer}.ssm_a", decay, (1, 1, sizes["heads"], 1), _negative_exponential)


def _add(build: Builder, name: str, source: Any, shape: tuple[int, ...], compute: Compute | None = None) -> None:
    build.plans.append(TensorPlan(name, shape, (source,), rows_to(shape), compute, keep="F32"))


def _negative_exponential(values: np.ndarray) -> np.ndarray:
    return (-np.exp(values.astype(np.float64))).astype(np.float32)


def _add_mla(build: Builder, layer: int) -> None:
    """llama.cpp wants the keys' and the values' part of ``kv_b_proj`` apart, the keys' transposed for each head."""
    sizes = build.sizes
    for row in _MLA:
        build.add_row(row, layer)
    heads, nope, value, lora = sizes["heads"], sizes["nope"], sizes["value"], sizes["lora"]
    name = f"model.layers.{layer}.self_attn.kv_b_proj.weight"
    source = build.tensors.take(name, (heads * (nope + value), lora))

    def keys(array: np.ndarray) -> np.ndarray:
        return array.reshape(heads, nope + value, lora)[:, :nope].swapaxes(1, 2)

    def values(array: np.ndarray) -> np.ndarray:
        return array.reshape(heads, nope + value, lora)[:, nope:]

    build.plans.append(TensorPlan(f"blk.{layer}.attn_k_b.weight", (heads, lora, nope), (source,), keys))
    build.plans.append(TensorPlan(f"blk.{layer}.attn_v_b.weight", (heads, value, lora), (source,), values))


def _feed_forward_name(build: Builder, layer: int) -> str:
    """Moonshot calls a dense network ``mlp``; transformers 5 reads that and saves it under the experts' name."""
    saved = "block_sparse_moe"
    return saved if f"model.layers.{layer}.{saved}.up_proj.weight" in build.tensors else "mlp"


def _add_feed_forward(build: Builder, layer: int, relu_squared: bool) -> None:
    build.add_row(NORMS[0], layer)
    if not relu_squared:
        rows = (NORMS[1], *GATED)
    else:
        norm = Row("ffn_norm.weight", "post_attention_layernorm.weight", ("hidden",), compute=_times(1 / _BETA))
        gate = Row("ffn_gate.weight", "mlp.up_proj.weight", ("ff", "hidden"), compute=_times(_BETA**2))
        rows = (norm, gate, *UP_DOWN)
    name = _feed_forward_name(build, layer)
    for row in rows:
        build.add_row(replace(row, source=row.source.replace("mlp.", f"{name}.")), layer)


def _times(factor: float) -> Compute:
    return lambda values: values * np.float32(factor)


def _add_identity(build: Builder, layer: int) -> None:
    """A layer whose attention and feed-forward network add nothing."""
    sizes = build.sizes
    rows = (*NORMS, *_MLA, *GATED)
    shapes = {row.name: tuple(sizes[name] for name in row.shape) for row in rows}
    shapes["attn_k_b.weight"] = (sizes["heads"], sizes["lora"], sizes["nope"])
    shapes["attn_v_b.weight"] = (sizes["heads"], sizes["value"], sizes["lora"])
    for name, shape in shapes.items():
        full = f"blk.{layer}.{name}"
        fill = np.ones if name.endswith("_norm.weight") else np.zeros
        build.plans.append(TensorPlan(full, shape, constant=_filled(fill, shape), keep=kept_type(full, shape)))


def _filled(fill: Any, shape: tuple[int, ...]) -> Any:
    return lambda: fill(shape, np.float32)


def _set_keys(build: Builder, is_full: list[bool]) -> None:
    sizes = build.sizes
    build.set("block_count", len(is_full))
    build.set("context_length", sizes["context"])
    build.set("embedding_length", sizes["hidden"])
    build.set("feed_forward_length", sizes["ff"])
    build.set("vocab_size", sizes["vocab"])
    build.set("attention.head_count", sizes["heads"])
    build.set("attention.head_count_kv", np.array([int(full) for full in is_full], np.int32))
    build.set("attention.layer_norm_rms_epsilon", build.config.number("rms_norm_eps", 1e-5))
    build.set("attention.kv_lora_rank", sizes["lora"])
    build.set("attention.key_length", sizes["lora"] + sizes["rope"])
    build.set("attention.key_length_mla", sizes["nope"] + sizes["rope"])
    build.set("attention.value_length_mla", sizes["value"])
    build.set("rope.dimension_count", sizes["rope"])
    build.set("ssm.conv_kernel", sizes["conv"])
    build.set("kda.head_dim", sizes["kda"])
    _set_expert_keys(build, len(is_full))


def _set_expert_keys(build: Builder, num_layers: int) -> None:
    """llama.cpp asks for these also where every layer is dense."""
    build.set("leading_dense_block_count", num_layers)
    build.set("expert_feed_forward_length", build.sizes["ff"])
    build.set("expert_shared_count", 1)
    build.set("expert_gating_func", _SIGMOID_GATE)
