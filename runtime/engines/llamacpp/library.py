"""llama.cpp's C library through llama-cpp-python's low-level bindings: loading, logging, errors."""

import ctypes
import logging
from collections import deque
from functools import cache
from pathlib import Path
from typing import Any

from ...errors import ModelError

log = logging.getLogger(__name__)

_recent_errors: deque[str] = deque(maxlen=8)
_callbacks: list[Any] = []
"""C callbacks, which have to outlive the library."""
_GGML_ERROR = 4


@cache
def llama() -> Any:
    """The bindings, with llama.cpp's own log routed to ``logging``. Imported on first use: it takes 0.2 s."""
    try:
        from llama_cpp import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        raise ModelError(f"llama-cpp-python cannot be loaded ({error}): reinstall it with pip") from error
    _callbacks.append(_log_callback(llama_cpp))
    llama_cpp.llama_log_set(_callbacks[-1], ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    return llama_cpp


def _log_callback(bindings: Any) -> Any:

    @bindings.llama_log_callback
    def forward(level: int, text: bytes, _user_data: Any) -> None:
        line = text.decode("utf-8", "replace").rstrip()
        if not line:
            return
        if level == _GGML_ERROR:
            _recent_errors.append(line)
        log.debug("llama.cpp: %s", line)

    return forward


def last_error() -> str:
    """What llama.cpp logged last as an error, without the name of the C function."""
    for line in reversed(_recent_errors):
        _, _, reason = line.rpartition(": error loading model: ")
        if reason and reason != line:
            return reason
    return _recent_errors[-1].partition(": ")[2] or _recent_errors[-1] if _recent_errors else "no reason given"


def load_model(path: Path, gpu_layers: int | None) -> Any:
    """The loaded model's handle. Raises ModelError with llama.cpp's own reason."""
    lib = llama()
    _recent_errors.clear()
    params = lib.llama_model_default_params()
    if gpu_layers is not None:
        params.n_gpu_layers = gpu_layers
    model = lib.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise ModelError(f"llama.cpp cannot load {path}: {last_error()}")
    return model
