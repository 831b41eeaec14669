"""Low-rank updates (arXiv 2106.09685, by peft): W + (alpha/rank)·B·A, where only A and B are trained."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from ...runtime.errors import ConfigError
from ..recipe.schema import Lora

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def with_lora(model: PreTrainedModel, lora: Lora, *, seed: int) -> PeftModel:
    """The model with updates beside the linear layers that ``targets`` name; everything else is frozen. A is drawn by
    ``seed``; B begins as zero, so at first it is the same model. ConfigError when nothing has such a name."""
    import torch
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # pyright: ignore[reportArgumentType]  any number will do
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        task_type="CAUSAL_LM",
    )
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
            torch.manual_seed(seed)
            adapted: Any = get_peft_model(model, config)
    except ValueError as error:
        linear = sorted({name.rpartition(".")[2] for name, part in model.named_modules() if _is_linear(part)})
        raise ConfigError(
            f"lora.targets {lora.targets!r} name no linear layer; the model has {', '.join(linear)}"
        ) from error
    return adapted


def merged(model: PeftModel) -> PreTrainedModel:
    """The updates added to the weights, in float32, and the model without them in the dtype that it had."""
    import torch

    dtypes = {name: parameter.dtype for name, parameter in model.get_base_model().named_parameters()}
    whole: Any = model.float().merge_and_unload()
    for name, parameter in whole.named_parameters():
        dtype = dtypes.get(name) or dtypes.get(_base_name(name)) or torch.float32
        parameter.data = parameter.data.to(dtype)
        parameter.requires_grad_(True)
    return whole


def _base_name(name: str) -> str:
    """What peft calls a weight that it stands beside."""
    stem, _, last = name.rpartition(".")
    return f"{stem}.base_layer.{last}"


def _is_linear(module: Any) -> bool:
    from torch import nn

    return isinstance(module, nn.Linear)
