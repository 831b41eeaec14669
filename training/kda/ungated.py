"""Students with and without a gate in their feed-forward networks, with room for weights but none yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers import KimiLinearForCausalLM

from ...runtime.engines.transformers.ungated_kimi import UngatedKimiLinear

if TYPE_CHECKING:
    from transformers import KimiLinearConfig, PreTrainedModel


def empty_student(config: KimiLinearConfig, gated: bool) -> PreTrainedModel:
    """A model on the meta device: load its weights with ``assign=True``."""
    with torch.device("meta"):
        return (KimiLinearForCausalLM if gated else UngatedKimiLinear)(config)


def has_gate(model: PreTrainedModel) -> bool:
    return not isinstance(model, UngatedKimiLinear)
