"""What a benchmark of the engines is asked to do. Light to import: the command line's defaults come from here."""

import os
from dataclasses import dataclass
from math import inf

from ...runtime.errors import ConfigError

ENGINE_BENCHES = {
    "onnx": "tapster serve against onnxruntime-genai, int4",
    "mlx": "tapster serve against mlx_lm, 4bit",
    "transformers": "tapster serve against model.generate",
    "vllm": "a vLLM through tapster against itself, 8 streams",
    "onnx-conversion": "the command that makes the int4 artifact",
}
ALL = "all"


@dataclass(frozen=True, kw_only=True)
class EngineBenchOptions:
    """``what`` is a checkpoint, or a GGUF file to make one from. ``threads`` None is all cores that may be used, for
    both sides. ``vllm_url`` is a running vLLM; without one ``vllm_python`` is the interpreter to start one with."""

    what: str = "demo"
    names: tuple[str, ...] = tuple(ENGINE_BENCHES)
    repeat: int = 3
    threads: int | None = None
    vllm_url: str | None = None
    vllm_python: str | None = None
    timeout_s: float = 600.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in (("--repeat", self.repeat), ("--replay-threads", self.threads or 1)):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}")
        if not 0 < self.timeout_s < inf:
            raise ConfigError(f"--timeout-s must be more than 0, not {self.timeout_s:g}")
        if self.what.startswith(("http://", "https://")):
            raise ConfigError("--engines makes artifacts and serves them: give a MODEL, not a URL")

    @property
    def has_vllm(self) -> bool:
        """Whether there is a vLLM, or what starts one."""
        return bool(self.vllm_url or self.vllm_python)


def parse_engines(text: str) -> tuple[str, ...]:
    """``all`` or names with commas between them. ConfigError for one that there is not."""
    names = tuple(ENGINE_BENCHES) if text == ALL else tuple(dict.fromkeys(filter(None, text.split(","))))
    for name in names:
        if name not in ENGINE_BENCHES:
            raise ConfigError(f"--engines {name}: give {ALL}, or some of {','.join(ENGINE_BENCHES)}")
    if not names:
        raise ConfigError(f"--engines is empty: give {ALL}, or some of {','.join(ENGINE_BENCHES)}")
    return names


def vllm_python() -> str | None:
    """The interpreter that has vLLM, where one is set."""
    return os.environ.get("TAPSTER_VLLM_PYTHON") or None
