"""From a teacher with attention to a student with Kimi Delta Attention (KDA) in its place.

Kept: embeddings, norms, feed-forward networks, and the four projections of each attention, where the heads of grouped
keys and values are repeated to one for each query. Gone: rotary positions. New, as published with KDA (arXiv 2510.26692
and fla's layer): the forget gate with ``A_log = log U(1, 16)`` and ``dt_bias = softplus⁻¹(exp U(log 0.001, log 0.1))``,
the writing strength, the output gate, and its norm. The short convolutions begin as the identity (all of the weight on
the last tap), so that the copied projections act from the first step.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from ...runtime.errors import ModelError
from ..recipe.schema import Kda
from .attention import use_chunked_attention
from .config import is_gated, kda_config, teacher_head_dim
from .ungated import empty_student

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import KimiLinearConfig, PreTrainedModel

_FAMILIES = ("llama", "mistral", "smollm3", "arcee")
"""Whose blocks, but for the attention, compute what a student's do. Others have weights of the same names, and multiply
or normalise otherwise, as only their code says."""
_NORMS = ("input_layernorm.weight", "post_attention_layernorm.weight")
_PROJECTIONS = tuple(f"self_attn.{letter}_proj.weight" for letter in "qkvo")
_UNGATED = ("mlp.up_proj.weight", "mlp.down_proj.weight")
_GATED = ("mlp.gate_proj.weight", *_UNGATED)


def replace_attention(teacher: PreTrainedModel, kda: Kda, *, seed: int = 0) -> PreTrainedModel:
    """The student of a Llama-shaped or Arcee ``teacher``, in its dtype and on its device.

    Weights that are copied unchanged are shared with the teacher, which must not be used any more where the student is
    trained. ModelError for an architecture with parts that a student has no place for.
    """
    gated = is_gated(teacher.config)
    weights = dict(teacher.state_dict())
    _check_parts(teacher, weights, gated)
    config = kda_config(teacher.config, kda)
    student = empty_student(config, gated)
    student.load_state_dict(_student_weights(teacher, weights, config, gated, seed), strict=True, assign=True)
    student.generation_config = teacher.generation_config
    student.train(teacher.training)
    return use_chunked_attention(student)


def _check_parts(teacher: PreTrainedModel, weights: dict[str, Tensor], gated: bool) -> None:
    """Every weight must be known: one that is not copied would be lost without a word. So must what is done with
    them."""
    parts = (*_NORMS, *_PROJECTIONS, *(_GATED if gated else _UNGATED))
    num_layers = teacher.config.num_hidden_layers
    expected = {f"model.layers.{layer}.{part}" for layer in range(num_layers) for part in parts}
    expected |= {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}
    kind = teacher.config.model_type
    if unknown := sorted(set(weights) - expected):
        raise ModelError(
            f"the teacher ({kind}) has {unknown[0]}, for which a KDA student has no place: use a Llama-shaped model "
            f"without biases and norms in its attention, or an Arcee model"
        )
    if missing := sorted(expected - set(weights)):
        raise ModelError(f"the teacher ({kind}) has no {missing[0]}: use a Llama-shaped or an Arcee model")
    if kind not in _FAMILIES:
        raise ModelError(
            f"the teacher ({kind}) is of none of the families whose parts a KDA student can take over: use a model of "
            f"{', '.join(_FAMILIES)}"
        )
    if getattr(teacher.config, "sliding_window", None):
        raise ModelError(f"the teacher ({kind}) has a sliding window of attention, which KDA does not have")


def _student_weights(
    teacher: PreTrainedModel, weights: dict[str, Tensor], config: KimiLinearConfig, gated: bool, seed: int
) -> dict[str, Tensor]:
    kept = (*_NORMS, *(_GATED if gated else _UNGATED))
    result = {name: weights[name] for name in ("model.embed_tokens.weight", "model.norm.weight")}
    result["lm_head.weight"] = _untied(weights["lm_head.weight"], weights["model.embed_tokens.weight"])
    generator = torch.Generator().manual_seed(seed)
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}."
        result |= {prefix + name: weights[prefix + name] for name in kept}
        attention = _projections(weights, f"{prefix}self_attn.", teacher.config) | _new_parts(config, generator)
        like = weights[f"{prefix}self_attn.q_proj.weight"]
        result |= {f"{prefix}self_attn.{name}": tensor.to(like) for name, tensor in attention.items()}
    return result


def _untied(head: Tensor, embedding: Tensor) -> Tensor:
    return head.clone() if head.data_ptr() == embedding.data_ptr() else head


def _projections(weights: dict[str, Tensor], prefix: str, teacher: Any) -> dict[str, Tensor]:
    """q, k, v and o, with as many heads of keys and values as of queries."""
    head_dim = teacher_head_dim(teacher)
    repeats = teacher.num_attention_heads // (teacher.num_key_value_heads or teacher.num_attention_heads)
    result = {f"{letter}_proj.weight": weights[f"{prefix}{letter}_proj.weight"] for letter in "qkvo"}
    for letter in "kv":
        matrix = result[f"{letter}_proj.weight"]
        by_head = matrix.view(-1, head_dim, matrix.shape[1])
        result[f"{letter}_proj.weight"] = by_head.repeat_interleave(repeats, dim=0).reshape(-1, matrix.shape[1])
    return result


def _new_parts(config: KimiLinearConfig, generator: torch.Generator) -> dict[str, Tensor]:
    """What KDA has and attention has not, of one layer, float32."""
    hidden, heads, head_dim = config.hidden_size, config.linear_num_heads, config.linear_head_dim
    inner = heads * head_dim

    def matrix(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * config.initializer_range

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(shape, generator=generator) * (high - low) + low

    step = uniform(math.log(1e-3), math.log(1e-1), inner).exp()
    return {
        "conv1d.weight": identity_convolution(3 * inner, config.linear_conv_kernel_dim),
        "forget_gate.f_a_proj.weight": matrix(head_dim, hidden),
        "forget_gate.f_b_proj.weight": matrix(inner, head_dim),
        "forget_gate.dt_bias": step + torch.log(-torch.expm1(-step)),
        "forget_gate.A_log": uniform(1.0, 16.0, 1, 1, heads, 1).log(),
        "b_proj.weight": matrix(heads, hidden),
        "g_a_proj.weight": matrix(head_dim, hidden),
        "g_b_proj.weight": matrix(inner, head_dim),
        "o_norm.weight": torch.ones(head_dim),
    }


def identity_convolution(channels: int, width: int) -> Tensor:
    """(channels, 1, width): a causal convolution that gives back what it gets."""
    weight = torch.zeros(channels, 1, width)
    weight[..., -1] = 1.0
    return weight
