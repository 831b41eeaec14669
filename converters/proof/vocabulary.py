"""The tokenizer of an artifact as the runtime runs it, without loading a tensor."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...runtime.engines.base import Tokenizer
from ...runtime.engines.llamacpp.library import last_error, llama
from ...runtime.engines.llamacpp.tokenizer import LlamaTokenizer
from ...runtime.errors import ModelError
from ...runtime.profile import ModelProfile, load_profile
from ...runtime.tokenizer.folder import open_tokenizer


@contextmanager
def tokenizer_of(artifact: Path | ModelProfile) -> Iterator[Tokenizer]:
    """The tokenizer of a GGUF file or of a folder. ModelError when it has none or it cannot be run."""
    profile = artifact if isinstance(artifact, ModelProfile) else load_profile(artifact)
    if profile.format != "gguf":
        yield open_tokenizer(profile)
        return
    with open_vocabulary(profile.path) as tokenizer:
        yield tokenizer


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
