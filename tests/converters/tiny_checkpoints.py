"""Small checkpoints of random weights, made with transformers: one for each form of each architecture.

Weights are drawn so that every part of a model matters for its logits, and rounded to bfloat16 before anything is
computed, so that what is saved is exactly what the logits belong to.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tapster.converters.checkpoint.checkpoint import open_checkpoint
from tapster.converters.gguf.architectures import embedding_rows, plan_model
from tapster.converters.gguf.plan import ModelPlan
from tapster.converters.tokenizer.read import read_vocabulary

NUM_TOKENS = 100
"""Length of the text: more than one chunk of 64 for KDA, and several sliding windows."""
_SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_KDA = {
    **_SMALL,
    "linear_num_heads": 2,
    "linear_head_dim": 32,
    "num_attention_heads": 2,
    "mlp_layer_types": ["dense", "dense"],
    "layer_types": ["linear_attention", "linear_attention"],
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 32,
    "v_head_dim": 32,
}
_LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 128}

RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama-biases": (
        "Llama",
        {
            "attention_bias": True,
            "mlp_bias": True,
            "head_dim": 32,
            "rope_parameters": {**_LLAMA3, "rope_theta": 500000.0, "original_max_position_embeddings": 64},
        },
    ),
    "llama-linear": (
        "Llama",
        {"tie_word_embeddings": True, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e3}},
    ),
    "llama-yarn": ("Llama", {"rope_parameters": _YARN}),
    "llama-yarn-factor": ("Llama", {"rope_parameters": {**_YARN, "attention_factor": 1.5}}),
    "mistral": ("Mistral", {"sliding_window": None, "head_dim": 32}),
    "smollm3": ("SmolLM3", {"num_hidden_layers": 5}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 32}),
    "stablelm": ("StableLm", {"partial_rotary_factor": 0.25}),
    "stablelm-12b": (
        "StableLm",
        {"partial_rotary_factor": 0.5, "use_qkv_bias": True, "qk_layernorm": True, "use_parallel_residual": True},
    ),
    "arcee": ("Arcee", {}),
    "gemma3": (
        "Gemma3",
        {"num_hidden_layers": 6, "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 16},
    ),
    "gemma3-pattern": (
        "Gemma3",
        {
            "num_hidden_layers": 3,
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "sliding_window": 16,
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
            "final_logit_softcapping": 20.0,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e5},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            },
        },
    ),
    "kda": ("KimiLinear", {**_KDA}),
    "kda-wide": ("KimiLinear", {**_KDA, "hidden_size": 256, "intermediate_size": 256, "linear_head_dim": 128}),
    "kda-relu2": ("KimiLinear", {**_KDA}),
    "kda-full": ("KimiLinear", {**_KDA, "layer_types": ["linear_attention", "full_attention"]}),
}
"""The class in transformers, and what its config has beyond the small sizes."""


@dataclass(frozen=True)
class TinyCheckpoint:
    """A saved checkpoint, token ids, and transformers' logits for all of them, (tokens, vocabulary)."""

    folder: Path
    tokens: list[int]
    logits: np.ndarray


def make_checkpoint(recipe: str, folder: Path, tokenizer: Callable[[Path], int]) -> TinyCheckpoint:
    """Save the model of a recipe below ``folder``; ``tokenizer`` adds its files and gives the number of tokens."""
    import torch
    import transformers

    folder.mkdir(parents=True)
    num_tokens = tokenizer(folder)
    family, values = RECIPES[recipe]
    rows = num_tokens if family == "Gemma3" else num_tokens + 20  # llama.cpp's script cuts Gemma's padding off
    config_class = getattr(transformers, "Gemma3TextConfig" if family == "Gemma3" else f"{family}Config")
    config = config_class(**{**_SMALL, **values, "vocab_size": rows, "attn_implementation": "eager"})
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    if recipe == "kda-relu2":
        _replace_feed_forward(model)
    _randomize(model)
    tokens = np.random.default_rng(1).integers(0, num_tokens, NUM_TOKENS).tolist()
    with torch.no_grad():
        logits = model.float()(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].numpy()
    model.bfloat16().save_pretrained(folder)
    if recipe == "kda-relu2":
        edit_json(folder / "config.json", hidden_act="relu2")
    edit_json(folder / "generation_config.json", eos_token_id=[2, 1])
    return TinyCheckpoint(folder, tokens, logits)


def plan_folder(folder: Path) -> ModelPlan:
    """The plan of a checkpoint folder."""
    checkpoint = open_checkpoint(folder)
    return plan_model(checkpoint, read_vocabulary(checkpoint, embedding_rows(checkpoint)))


def edit_json(path: Path, **values: Any) -> None:
    """Set keys of a JSON file, which need not be there yet."""
    found = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**found, **values}))


def _randomize(model: Any) -> None:
    """Weights that keep activations near one, norms and biases that are not trivial; all of them bfloat16 numbers."""
    import torch

    generator = torch.Generator().manual_seed(0)
    centre = 0.0 if "Gemma3" in type(model).__name__ else 1.0  # Gemma's norms add the one themselves
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("A_log"):
                value = noise * 0.5 + 0.5
            elif "post_feedforward" in name:
                value = 0.2 * noise - 0.7  # small: llama.cpp looks GELU up in a table of float16
            elif "norm" in name and name.endswith("weight"):
                value = centre + 0.2 * noise
            elif parameter.ndim == 1:
                value = 0.2 * noise
            elif "embed_tokens" in name:
                value = noise * (parameter.shape[-1] ** -0.5 if centre == 0 else 1.0)
            else:
                value = noise * parameter.shape[-1] ** -0.5
            parameter.copy_(value.bfloat16())


def _replace_feed_forward(model: Any) -> None:
    """ReLU² without a gate, which transformers' class does not have."""
    import torch

    class ReluSquared(torch.nn.Module):
        def __init__(self, hidden: int, width: int) -> None:
            super().__init__()
            self.up_proj = torch.nn.Linear(hidden, width, bias=False)
            self.down_proj = torch.nn.Linear(width, hidden, bias=False)

        def forward(self, x: Any) -> Any:
            return self.down_proj(torch.relu(self.up_proj(x)) ** 2)

    for layer in model.model.layers:
        layer.mlp = ReluSquared(model.config.hidden_size, model.config.intermediate_size)
