"""Small models of architectures that are built in other ways than Llama: their settings in transformers."""

from typing import Any

_SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
}
_EXPERTS = {"num_experts_per_tok": 2, "num_local_experts": 4, "num_experts": 4, "moe_intermediate_size": 32}
_MLA = {
    "kv_lora_rank": 16,
    "q_lora_rank": None,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 24,
    "num_key_value_heads": 4,
}

WILD: dict[str, dict[str, Any]] = {
    "GPT2": {"n_positions": 256, "n_embd": 64, "n_layer": 2, "n_head": 4},  # learnt positions
    "GPTNeoX": {},  # rotates a part of each head, in parallel with the feed-forward network
    "GPTJ": {"n_positions": 256, "n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8},
    "OPT": {"word_embed_proj_dim": 64, "ffn_dim": 96},  # positions counted from the mask
    "Bloom": {"n_layer": 2, "n_head": 4},  # ALiBi
    "Falcon": {"alibi": True, "new_decoder_architecture": False},
    "Mistral": {"sliding_window": 12},  # all layers slide, and the mask is one
    "Phi3": {"sliding_window": 12},
    "Gemma2": {"sliding_window": 12, "head_dim": 16, "query_pre_attn_scalar": 16},
    "Cohere2": {"sliding_window": 12},
    "Mixtral": _EXPERTS,
    "Qwen3Moe": _EXPERTS,
    "GptOss": {**_EXPERTS, "sliding_window": 12, "head_dim": 16},  # attention sinks
    "DeepseekV2": {**_MLA, **_EXPERTS, "n_routed_experts": 4, "first_k_dense_replace": 1},  # keys wider than values
    "Mamba": {"state_size": 8},
    "Mamba2": {"state_size": 8, "head_dim": 16, "num_heads": 8, "n_groups": 1, "chunk_size": 16},
    "Jamba": {**_EXPERTS, "use_mamba_kernels": False, "attn_layer_period": 2, "attn_layer_offset": 1},
    "Qwen3Next": {**_EXPERTS, "num_hidden_layers": 4, "head_dim": 16, "shared_expert_intermediate_size": 32},
    "Lfm2": {"layer_types": ["conv", "full_attention"]},
    "RecurrentGemma": {"attention_window_size": 12, "lru_width": 64, "num_hidden_layers": 3, "head_dim": 16},
    "FalconH1": {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "head_dim": 16},
}


def make_model(name: str, tokens: list[int]) -> tuple[Any, Any]:
    """A model with random weights, and its logits for ``tokens``, (tokens, vocabulary), without a cache."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**_SIZES, **WILD[name]})
    model = transformers.AutoModelForCausalLM.from_config(config).eval().float()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape) * parameter.shape[-1] ** -0.5)
        logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].float().numpy()
    return model, logits
