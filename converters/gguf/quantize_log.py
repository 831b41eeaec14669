"""What llama.cpp's log says while it quantizes: where it is, which tensors fall back, why it failed.

The lines, each made of several calls (llama-quant.cpp):

    [  12/ 272] blk.1.attn_q.weight - [576, 576, 1, 1], type = bf16, converting to q4_K .. size = …
    warning: blk.0.attn_k.weight - ncols 576 not divisible by 256 (required for type q4_K) -> falling back to q5_0
    llama_model_quantize: failed to quantize: REASON
"""

import re
from collections.abc import Callable

_TENSOR = re.compile(r"\[ *\d+/ *\d+\] (\S+) +- ")
_FALLBACK = re.compile(r"warning: (\S+) +- ncols +\d+ not divisible by +\d+ \(required for type +(\w+)\).*to +(\w+)\n")
_FAILED = re.compile(r"failed to quantize: ([^\n]*)")
_KEPT_CHARACTERS = 2000


class QuantizeLog:
    """Reads the log in the pieces in which it comes. ``say`` gets ``tensor=`` or ``fallback=`` as they happen."""

    def __init__(self, say: Callable[..., None]) -> None:
        self._say = say
        self._text = ""
        self._reason = ""

    def clear(self) -> None:
        """Forget the last job."""
        self._text = self._reason = ""

    def feed(self, text: str) -> None:
        """A further piece."""
        self._text += text
        if found := _TENSOR.search(self._text):
            self._text = self._text[found.end() :]
            self._say(tensor=found[1])
        elif found := _FALLBACK.search(self._text):
            self._text = self._text[found.end() :]
            self._say(fallback=[found[1], found[2].upper(), found[3].upper()])
        elif found := _FAILED.search(self._text):
            self._reason = found[1].strip()
        self._text = self._text[-_KEPT_CHARACTERS:]

    def reason(self) -> str:
        """Why it failed, in llama.cpp's words."""
        return self._reason or " ".join(self._text.split())[-200:] or "it gave no reason"
