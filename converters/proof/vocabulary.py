"""The tokenizer of a GGUF file as llama.cpp implements it, without loading a tensor."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...runtime.engines.llamacpp.library import last_error, llama
from ...runtime.engines.llamacpp.tokenizer import LlamaTokenizer
from ...runtime.errors import ModelError


@contextmanager
def open_vocabulary(path: Path) -> Iterator[LlamaTokenizer]:
    """The tokenizer, for as long as the context lasts. ModelError when llama.cpp refuses the file."""
    lib = llama()
    params = lib.llama_model_default_params()
    params.vocab_only = True
    model = lib.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise ModelError(f"llama.cpp cannot load {path}: {last_error()}")
    tokenizer = LlamaTokenizer(model)
    try:
        yield tokenizer
    finally:
        tokenizer.handle = None
        lib.llama_model_free(model)
