"""A folder's ONNX graph as an onnxruntime session."""

import os
from pathlib import Path

import onnxruntime

from ...errors import ModelError
from ...folder_configs import read_configs
from ...json_file import read_optional_json
from ...model_folder import GENAI_CONFIG, onnx_file
from ..local.threads import default_threads

_NO_DATA = ("external data", "external initializer", "no such file", "cannot open")


def open_session(folder: Path, threads: int | None) -> onnxruntime.InferenceSession:
    """The graph in ``folder``, ready to run. ModelError with a line that says why not."""
    path = onnx_file(folder, read_optional_json(folder / GENAI_CONFIG))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or default_threads()
    options.log_severity_level = 4  # what goes wrong is raised, and becomes one line below
    # threads spin within a step, where operators follow each other closely, and not between steps
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class but Exception
        reason = first_line(error)
        if any(word in reason.lower() for word in _NO_DATA):
            raise ModelError(f"{path} has no weights beside it, or not all of them: {reason}") from error
        raise ModelError(f"onnxruntime cannot load {path}: {reason}") from error


def declared_cache(folder: Path) -> tuple[int, int] | None:
    """Heads in the cache and their width, as the folder's config files have them."""
    configs = read_configs(folder)
    for config, width_key in ((configs.genai.get("decoder"), "head_size"), (configs.config, "head_dim")):
        if not isinstance(config, dict):
            continue
        all_heads, hidden = config.get("num_attention_heads"), config.get("hidden_size")
        heads, width = config.get("num_key_value_heads") or all_heads, config.get(width_key)
        if width is None and isinstance(all_heads, int) and all_heads and isinstance(hidden, int):
            width = hidden // all_heads
        if isinstance(heads, int) and isinstance(width, int):
            return heads, width
    return None


def first_line(error: BaseException) -> str:
    """What an exception says, without onnxruntime's own prefixes, on one line."""
    text = " ".join(str(error).split())
    text = text.split(" : ", 3)[-1] if text.startswith("[ONNXRuntimeError]") else text
    return text if len(text) <= 300 else f"{text[:297]}..."
