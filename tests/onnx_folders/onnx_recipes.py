"""Checkpoints beyond those that all converters share: what the graph can say and GGUF cannot, and other corners."""

from tiny_checkpoints import RECIPES

_LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_UNEVEN_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
    "beta_fast": 16,
    "beta_slow": 2,
    "truncate": False,
    "mscale": 1.0,
    "mscale_all_dim": 0.5,
}
EXTRA_RECIPES = {
    "mistral-window": ("Mistral", {"sliding_window": 16, "head_dim": 32}),
    "qwen2-window": (
        "Qwen2",
        {"num_hidden_layers": 3, "use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    ),
    "smollm3-schedule": ("SmolLM3", {"num_hidden_layers": 4, "no_rope_layers": [0, 1, 1, 0]}),
    "smollm3-window": (
        "SmolLM3",
        {"num_hidden_layers": 4, "no_rope_layers": [1, 0, 1, 0], "use_sliding_window": True, "sliding_window": 16},
    ),
    "smollm3-biases": ("SmolLM3", {"attention_bias": True, "mlp_bias": True}),
    "llama-yarn-uneven": ("Llama", {"rope_parameters": _UNEVEN_YARN}),
    "llama-dynamic": ("Llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}),
    "llama-odd-heads": ("Llama", {"head_dim": 24, "hidden_size": 96}),
    "arcee-biases": (
        "Arcee",
        {
            "attention_bias": True,
            "mlp_bias": True,
            "rope_parameters": {**_LLAMA3, "rope_theta": 500000.0, "original_max_position_embeddings": 64},
        },
    ),
    "qwen3-biases": ("Qwen3", {"attention_bias": True, "head_dim": 32, "tie_word_embeddings": True}),
}


def _is_written(family: str) -> bool:
    return family not in ("Gemma3", "KimiLinear")


ALL_RECIPES = [name for name, (family, _) in RECIPES.items() if _is_written(family)] + list(EXTRA_RECIPES)
"""All forms of all architectures that are written."""
