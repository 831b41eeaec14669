"""Tiny teachers of random weights, and students of them in which every part matters."""

from typing import Any

import torch

from tapster.training.kda.surgery import replace_attention
from tapster.training.recipe.schema import Kda

SMALL: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 2,
}


def tiny_teacher(family: str = "Llama", **values: Any) -> Any:
    """A model of ``family``, such as Llama or Arcee, in evaluation mode."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**SMALL, **values})
    return getattr(transformers, f"{family}ForCausalLM")(config).eval()


def lively_student(family: str = "Llama", *, spread: float = 5.0, **values: Any) -> Any:
    """A student whose gates and convolutions are far from where they begin, all weights numbers of bfloat16."""
    student = replace_attention(tiny_teacher(family, **values), Kda())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "proj" in name:
                parameter.mul_(spread)
            elif "conv1d" in name or "norm" in name:
                parameter.add_(0.2 * noise)
            parameter.copy_(parameter.bfloat16())
    return student


def logits_of(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=tokens, use_cache=False).logits
