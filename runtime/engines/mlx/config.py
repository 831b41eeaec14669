"""The MLX engine's settings."""

from dataclasses import dataclass

from ..config import EngineConfig


@dataclass(frozen=True, kw_only=True)
class MlxConfig(EngineConfig):
    """See ``EngineConfig``. ``trust_remote_code`` allows a folder to bring its model as a Python file, which is run."""

    trust_remote_code: bool = False
