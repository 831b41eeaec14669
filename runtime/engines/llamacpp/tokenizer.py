"""The model's own tokenizer, as llama.cpp implements it."""

import ctypes
from typing import Any

from ...errors import EngineError
from .library import llama

_PIECE_BYTES = 256


class LlamaTokenizer:
    """Text to ids and ids to bytes, by the vocabulary inside the GGUF. Usable from any thread.

    Pieces are looked up once and kept, so that turning a token into bytes costs a list access.
    """

    def __init__(self, model: Any) -> None:
        self._lib = lib = llama()
        self.handle: Any = lib.llama_model_get_vocab(model)
        """The C vocabulary; None once the model has been freed."""
        vocab = self.handle
        self.vocab_size: int = lib.llama_vocab_n_tokens(vocab)
        self.bos_id = _id_or_none(lib.llama_vocab_bos(vocab))
        self.eos_id = _id_or_none(lib.llama_vocab_eos(vocab))
        self.add_bos: bool = bool(lib.llama_vocab_get_add_bos(vocab))
        self._pieces: list[bytes | None] = [None] * self.vocab_size
        self._control: list[bool | None] = [None] * self.vocab_size
        self.eog_ids = frozenset(i for i in range(self.vocab_size) if self._is_eog(i))

    def encode(self, text: str, *, add_special: bool = False, parse_special: bool = True) -> list[int]:
        """Ids of ``text``; see ``Tokenizer.encode``. A lone surrogate becomes a question mark."""
        if self.handle is None:
            raise EngineError("the engine has stopped", is_shutdown=True)
        data = text.encode("utf-8", "replace")
        size = len(data) + 8
        while True:
            ids = (ctypes.c_int32 * size)()
            n = self._lib.llama_tokenize(self.handle, data, len(data), ids, size, add_special, parse_special)
            if n >= 0:
                return ids[:n]
            size = -n

    def piece(self, token_id: int) -> bytes:
        """The bytes of one token; a control token's are its name."""
        piece = self._pieces[token_id]
        if piece is None:
            piece = self._pieces[token_id] = self._read_piece(token_id)
        return piece

    def is_control(self, token_id: int) -> bool:
        """Whether the token is a control token, whose text is no part of an answer."""
        control = self._control[token_id]
        if control is None:
            is_open = self.handle is not None
            control = is_open and bool(self._lib.llama_vocab_is_control(self.handle, token_id))
            self._control[token_id] = control
        return control

    def _read_piece(self, token_id: int) -> bytes:
        if self.handle is None:
            return b""
        size = _PIECE_BYTES
        while True:
            buffer = ctypes.create_string_buffer(size)
            n = self._lib.llama_token_to_piece(self.handle, token_id, buffer, size, 0, True)
            if n >= 0:
                return buffer.raw[:n]
            size = -n

    def _is_eog(self, token_id: int) -> bool:
        return bool(self._lib.llama_vocab_is_eog(self.handle, token_id))


def _id_or_none(token_id: int) -> int | None:
    return token_id if token_id >= 0 else None
