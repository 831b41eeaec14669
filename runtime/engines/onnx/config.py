"""The ONNX engine's settings."""

from dataclasses import dataclass

from ..config import EngineConfig


@dataclass(frozen=True, kw_only=True)
class OnnxConfig(EngineConfig):
    """Nothing beyond what every engine has."""
