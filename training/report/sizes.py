"""How large a model is, without its weights: built on torch's meta device from its config."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime.errors import ModelError

if TYPE_CHECKING:
    from ..recipe.schema import Kda, Lora, Stage, Student

_ATTENTION = re.compile(r"\.self_attn\.[qkvo]_proj\.")


@dataclass(frozen=True, slots=True)
class Sizes:
    """``shapes`` of the parameters by name; what is tied is counted once."""

    shapes: Mapping[str, tuple[int, ...]]
    hidden: int
    layers: int
    vocabulary: int
    heads: int
    head_dim: int
    is_tied: bool
    other_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of parameters that have several."""

    @property
    def parameters(self) -> int:
        return sum(_count(shape) for shape in self.shapes.values())

    @property
    def computing(self) -> int:
        """Parameters that are multiplied with every token: not an embedding that is only looked up."""
        return self.parameters - (0 if self.is_tied else self.vocabulary * self.hidden)

    def trained(self, stage: Stage) -> int:
        """Parameters that the optimiser moves."""
        if stage.lora is not None:
            return _low_rank(self.shapes, stage.lora)
        return sum(
            _count(shape)
            for name, shape in self.shapes.items()
            if is_trained([name, *self.other_names.get(name, ())], stage)
        )

    def with_kda(self, kda: Kda) -> Sizes:
        """The size after attention has been replaced. The output layer is then a matrix of its own."""
        layers = range(self.layers) if kda.layers == "all" else kda.layers
        gone = tuple(f"model.layers.{layer}.self_attn." for layer in layers)
        shapes = {name: shape for name, shape in self.shapes.items() if not name.startswith(gone)}
        head_dim = kda.head_dim or self.head_dim
        for layer in layers:
            for name, shape in kda_shapes(self.hidden, self.heads, head_dim, kda.conv_kernel).items():
                shapes[f"model.layers.{layer}.self_attn.{name}"] = shape
        shapes["lm_head.weight"] = (self.vocabulary, self.hidden)
        return replace(self, shapes=shapes, is_tied=False, other_names={})


def is_trained(names: Collection[str], stage: Stage) -> bool:
    """Whether a parameter of these names is neither frozen nor left out."""
    if stage.trained and not _finds(stage.trained, names):
        return False
    return not _finds(stage.frozen, names)


def _finds(patterns: Collection[str], names: Collection[str]) -> bool:
    return any(re.search(pattern, name) for pattern in patterns for name in names)


def kda_shapes(hidden: int, heads: int, head_dim: int, kernel: int) -> dict[str, tuple[int, ...]]:
    """The parameters of a layer of Kimi Delta Attention as transformers builds it (no bias in the output gate)."""
    inner = heads * head_dim
    wide = {f"{name}_proj.weight": (inner, hidden) for name in "qkv"}
    convolutions = {f"{name}_conv1d.weight": (inner, 1, kernel) for name in "qkv"}
    gates = {f"{name}_a_proj.weight": (head_dim, hidden) for name in "fg"}
    gates |= {f"{name}_b_proj.weight": (inner, head_dim) for name in "fg"}
    rest = {"b_proj.weight": (heads, hidden), "A_log": (heads,), "dt_bias": (inner,), "o_norm.weight": (head_dim,)}
    return wide | convolutions | gates | rest | {"o_proj.weight": (hidden, inner)}


def student_sizes(student: Student, resolve_model: Callable[[str], Path]) -> Sizes:
    """Of the model that a recipe trains. ConfigError where the recipe's values make none."""
    from ..kda.config import check_layers

    if student.scratch is not None:
        return _scratch_sizes(student, resolve_model)
    assert student.model is not None
    sizes = model_sizes(student.model, resolve_model)
    if student.kda is None:
        return sizes
    check_layers(student.kda, sizes.layers)
    return sizes.with_kda(student.kda)


def model_sizes(spec: str, resolve_model: Callable[[str], Path]) -> Sizes:
    """Of a model that is there. ModelError where its config cannot be read."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = resolve_model(spec)
    try:
        with torch.device("meta"):
            return _sizes(AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder)))
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"cannot tell the size of {spec}: {str(error).splitlines()[0]}") from error


def _scratch_sizes(student: Student, resolve_model: Callable[[str], Path]) -> Sizes:
    import torch

    from ..student.scratch import model_of, scratch_config

    assert student.scratch is not None
    assert student.tokenizer is not None, "a model from scratch has one"
    config = scratch_config(student.scratch, _vocabulary(student.tokenizer, resolve_model))
    with torch.device("meta"):
        return _sizes(model_of(config))


def _vocabulary(tokenizer: str, resolve_model: Callable[[str], Path]) -> int:
    """How many tokens it has; one that is made of the training text is not made for that."""
    from ..student.tokenizer import make_tokenizer

    if tokenizer.startswith("train:"):
        return int(tokenizer.removeprefix("train:"))
    return len(make_tokenizer(tokenizer, texts=list, resolve_model=resolve_model))


def _sizes(model: Any) -> Sizes:
    text = model.config.get_text_config()
    return Sizes(
        shapes={name: tuple(parameter.shape) for name, parameter in model.named_parameters()},
        other_names=_other_names(model),
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        vocabulary=text.vocab_size,
        heads=text.num_attention_heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        is_tied=bool(text.tie_word_embeddings),
    )


def _other_names(model: Any) -> dict[str, tuple[str, ...]]:
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[str, tuple[str, ...]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name != (known := first[id(parameter)]):
            found[known] = (*found.get(known, ()), name)
    return found


def _low_rank(shapes: Mapping[str, tuple[int, ...]], lora: Lora) -> int:
    """Of each matrix (out, in) that is adapted, rank times both."""
    return sum(lora.rank * sum(shape) for name, shape in shapes.items() if len(shape) == 2 and _is_adapted(name, lora))


def _is_adapted(name: str, lora: Lora) -> bool:
    module = name.removesuffix(".weight")
    if lora.targets == "all-linear":  # as peft has it: not the output layer
        return module.rpartition(".")[2] not in ("lm_head", "embed_tokens", "wte", "wpe")
    return f".{module}".endswith(tuple(f".{target}" for target in lora.targets))


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total
