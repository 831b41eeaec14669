"""Logits of a GGUF file by llama.cpp, every position, with everything in float32."""

from pathlib import Path

import numpy as np

from tapster.runtime.engines.llamacpp.context import Batch
from tapster.runtime.engines.llamacpp.library import llama, load_model


def llama_logits(path: Path, tokens: list[int]) -> np.ndarray:
    """Float32 of (tokens, vocabulary), all tokens in one batch."""
    lib = llama()
    model = load_model(path, 0)
    params = lib.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = 256
    params.type_k = params.type_v = 0  # float32
    params.flash_attn_type = 0
    params.n_threads = params.n_threads_batch = 2
    context = lib.llama_init_from_model(model, params)
    assert context, f"llama.cpp makes no context for {path}"
    try:
        batch = Batch(len(tokens))
        batch.add_run(tokens, 0, 0, all_outputs=True, last_output=True)
        assert lib.llama_decode(context, batch.struct()) == 0
        size = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
        return np.ctypeslib.as_array(lib.llama_get_logits(context), (len(tokens), size)).copy()
    finally:
        lib.llama_free(context)
        lib.llama_model_free(model)
