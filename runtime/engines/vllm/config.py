"""Settings of the vLLM engine; the command line takes its defaults from here."""

import math
import os
from dataclasses import dataclass, field
from typing import ClassVar

from ...errors import ConfigError
from ..config import EngineConfig
from .address import Address

_OURS = ("--host", "--port", "--uds", "--api-key", "--ssl-keyfile", "--ssl-certfile", "--root-path", "--headless")


@dataclass(frozen=True, kw_only=True)
class VllmConfig(EngineConfig):
    """Which servers to use, or how to start one.

    ``addresses`` are running servers, and ``model_id`` is one of the models that they have (default: their first); both
    come from a ``vllm://`` URL. Without any, one is started on the model's own checkpoint: ``vllm_python`` is the
    interpreter that has vLLM (default: TAPSTER_VLLM_PYTHON, else this one, else the program ``vllm``), ``arguments``
    go to ``vllm serve``, ``vllm_start_timeout_s`` is for its start.

    ``vllm_connect_timeout_s`` is for a connection, ``vllm_read_timeout_s`` for the silence between two tokens. A
    request that has had no token yet is tried on every server ``vllm_retries`` times more. ``max_parallel`` and
    ``max_waiting`` together are the requests that may be open; how many run at once is the server's to say.
    """

    LEAST: ClassVar[dict[str, int]] = {**EngineConfig.LEAST, "vllm_retries": 0}

    max_parallel: int = 64
    addresses: tuple[Address, ...] = ()
    model_id: str | None = None
    api_key: str | None = field(default_factory=lambda: os.environ.get("VLLM_API_KEY") or None, repr=False)
    vllm_connect_timeout_s: float = 5.0
    vllm_read_timeout_s: float = 60.0
    vllm_retries: int = 2
    vllm_python: str | None = field(default_factory=lambda: os.environ.get("TAPSTER_VLLM_PYTHON") or None)
    arguments: tuple[str, ...] = ()
    vllm_start_timeout_s: float = 3600.0
    stop_grace_s: float = 15.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("vllm_connect_timeout_s", "vllm_read_timeout_s", "vllm_start_timeout_s", "stop_grace_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(
                    f"--{name.replace('_', '-')} must be a number of seconds above 0, not {getattr(self, name):g}"
                )
        for name in ("threads", "batch_tokens"):
            if getattr(self, name) != getattr(EngineConfig, name):
                raise ConfigError(f"--{name.replace('_', '-')} has no effect on the vllm engine: leave it out")
        for argument in self.arguments:
            name = argument.partition("=")[0].replace("_", "-")
            if name in _OURS:
                raise ConfigError(f"{name} cannot be given to vLLM: tapster chooses it, and is what clients talk to")
        if self.arguments and self.addresses:
            raise ConfigError("arguments after -- are for a vLLM that tapster starts, and this one runs already")
        if self.api_key and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise ConfigError("the vLLM API key has characters that no HTTP header can hold")
