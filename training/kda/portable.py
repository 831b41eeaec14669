"""Between a student as it is trained and the form that other programs run: plain ``kimi_linear``.

Two things differ. The portable form has *one more layer*, of full attention, whose output matrices are zero: it leaves
the residual stream as it is, bit for bit, and without such a layer transformers cannot generate with a cache, MLX
cannot load the model and llama.cpp cannot run it. And where the feed-forward network is ReLU² without a gate (Arcee),
which ``kimi_linear`` does not have, the portable form has a gate: SiLU(βu)·u/β is within 0.48/β² of ReLU(u)². The norm
before it takes 1/β and the gate β², so that the other weights stay as they are; β = 64 is a power of two, so nothing is
rounded and the way back gives the very same weights.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch

from .attention import use_chunked_attention
from .ungated import empty_student, has_gate

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

_BETA = 64.0
_NORM = "post_attention_layernorm.weight"


def to_portable(student: PreTrainedModel) -> PreTrainedModel:
    """A plain KimiLinearForCausalLM that computes the same; weights that do not change are shared."""
    config: Any = copy.deepcopy(student.config)
    weights = dict(student.state_dict())
    if not has_gate(student):
        for layer in range(config.num_hidden_layers):
            _add_gate(weights, f"model.layers.{layer}.")
    if "full_attention" not in config.layer_types:
        config.layer_types = [*config.layer_types, "full_attention"]
        config.mlp_layer_types = [*config.mlp_layer_types, "dense"]
        config.num_hidden_layers += 1
    config.use_cache = True
    model = empty_student(config, gated=True)
    like = next(iter(weights.values()))
    added = {name: tensor for name, tensor in model.state_dict().items() if name not in weights}
    weights |= {name: _neutral(name, tensor).to(like) for name, tensor in added.items()}
    model.load_state_dict(weights, strict=True, assign=True)
    model.generation_config = student.generation_config
    return model.eval()


def from_portable(model: PreTrainedModel) -> PreTrainedModel:
    """The student again: without the layer that does nothing, and without gates that are no gates.

    A model that has neither comes back as it was, computing by chunks.
    """
    config: Any = copy.deepcopy(model.config)
    weights = dict(model.state_dict())
    num_layers = config.num_hidden_layers
    if _is_neutral(config, weights):
        num_layers -= 1
        config.num_hidden_layers, config.layer_types = num_layers, config.layer_types[:-1]
        config.mlp_layer_types = config.mlp_layer_types[:-1]
        last = f"model.layers.{num_layers}."
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith(last)}
    prefixes = [f"model.layers.{layer}." for layer in range(num_layers)]
    gated = not all(_is_relu_squared(weights, prefix) for prefix in prefixes)
    if not gated:
        for prefix in prefixes:
            _remove_gate(weights, prefix)
    student = empty_student(config, gated)
    student.load_state_dict(weights, strict=True, assign=True)
    student.generation_config = model.generation_config
    return use_chunked_attention(student.train(model.training))


def _add_gate(weights: dict[str, Tensor], prefix: str) -> None:
    weights[f"{prefix}mlp.gate_proj.weight"] = weights[f"{prefix}mlp.up_proj.weight"] * _BETA**2
    weights[prefix + _NORM] = weights[prefix + _NORM] / _BETA


def _remove_gate(weights: dict[str, Tensor], prefix: str) -> None:
    del weights[f"{prefix}mlp.gate_proj.weight"]
    weights[prefix + _NORM] = weights[prefix + _NORM] * _BETA


def _is_relu_squared(weights: dict[str, Tensor], prefix: str) -> bool:
    gate, up = (weights.get(f"{prefix}mlp.{part}_proj.weight") for part in ("gate", "up"))
    return gate is not None and up is not None and torch.equal(gate, up * _BETA**2)


def _neutral(name: str, tensor: Tensor) -> Tensor:
    """Norms are ones, matrices zeros: attention and feed-forward network add nothing."""
    return (torch.ones if "norm" in name else torch.zeros)(tensor.shape)


def _is_neutral(config: Any, weights: dict[str, Tensor]) -> bool:
    """Whether the last layer is the one that was appended, unchanged."""
    if config.layer_types[-1] != "full_attention" or "full_attention" in config.layer_types[:-1]:
        return False
    prefix = f"model.layers.{config.num_hidden_layers - 1}."
    outputs = (f"{prefix}self_attn.o_proj.weight", f"{prefix}mlp.down_proj.weight")
    return not any(weights[name].any() for name in outputs)
