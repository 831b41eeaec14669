"""A checkpoint folder as a torch model. Imported when an engine is opened: torch takes seconds."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers

from ...errors import ConfigError, ModelError
from .config import TransformersConfig
from .ungated_kimi import UngatedKimiLinear

log = logging.getLogger(__name__)


def choose_device(config: TransformersConfig) -> torch.device:
    """The device asked for, or CUDA when there is one. ConfigError for one that is not there."""
    if config.device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=config.device).device
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ConfigError(f"--device {config.device} cannot be used: {first_line(error)}") from error


def load_model(path: Path, config: TransformersConfig) -> Any:
    """The model in ``path``, ready to compute. ModelError with a line that says why not."""
    device = choose_device(config)
    model_config = _load_config(path)
    model = _load_weights(path, model_config, _dtype(model_config, config, device))
    try:
        return model.to(device).eval().requires_grad_(False)
    except torch.OutOfMemoryError as error:
        raise ModelError(f"{path} does not fit into the memory of {device}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """What an exception says, on one line."""
    text = " ".join(str(error).split("\n\n")[0].split())
    return text if len(text) <= 300 else f"{text[:297]}..."


def _load_config(path: Path) -> Any:
    if not (path / "config.json").is_file():
        raise ModelError(f"{path} has no config.json: give a folder with a checkpoint that transformers saved")
    try:
        config = transformers.AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises whatever its parsers meet
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"{path} is computed by Python code of its own, which tapster does not run: use a checkpoint of an "
                "architecture that transformers knows"
            ) from error
        raise ModelError(f"transformers cannot read {path / 'config.json'}: {first_line(error)}") from error
    if config.is_encoder_decoder or type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(f"transformers has no generative model for the architecture {config.model_type!r} of {path}")
    return config


def _load_weights(path: Path, config: Any, dtype: torch.dtype) -> Any:
    model_class: Any = transformers.AutoModelForCausalLM
    if config.model_type == "kimi_linear" and config.hidden_act == "relu2":
        model_class = UngatedKimiLinear
    try:
        model, info = model_class.from_pretrained(
            path,
            config=config,
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # which then are in the info: transformers' own error does not name them
            output_loading_info=True,
        )
    except Exception as error:  # a missing shard, a damaged file, a wrong shape: every reader has its own class
        raise ModelError(f"transformers cannot load {path}: {first_line(error)}") from error
    problems = sorted(info["missing_keys"]) or sorted(key for key, *_ in info["mismatched_keys"])
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise ModelError(f"{path} lacks weights, or has them in another shape: {problems[0]}{more}")
    if info["unexpected_keys"]:
        log.warning("%s has weights that transformers does not use: %s", path, sorted(info["unexpected_keys"])[0])
    return model


def _dtype(model_config: Any, config: TransformersConfig, device: torch.device) -> torch.dtype:
    """A CPU computes in float32: most have no instructions for 16 bits, and it is exact for 16-bit weights."""
    if config.dtype is not None:
        return getattr(torch, config.dtype)
    own = model_config.dtype or torch.float32
    return torch.float32 if device.type == "cpu" else own


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without progress bars, and with warnings for errors only: what matters becomes a ModelError here."""
    logs = transformers.utils.logging
    level, has_bar = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(level)
        if has_bar:
            logs.enable_progress_bar()
