"""The transformers engine's settings."""

from dataclasses import dataclass

from ...errors import ConfigError
from ..config import EngineConfig

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class TransformersConfig(EngineConfig):
    """``device`` is a torch device such as ``cpu``, ``cuda``, ``cuda:1`` or ``mps`` (default: CUDA when there is one).
    ``dtype`` is what the weights are computed in (default: the checkpoint's own on a GPU, float32 on a CPU)."""

    device: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dtype is not None and self.dtype not in DTYPES:
            raise ConfigError(f"--dtype must be one of {', '.join(DTYPES)}, not {self.dtype}")
