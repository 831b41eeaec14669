"""Which engines there are, which formats each reads, and what has to be installed for it."""

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, ModelError

if TYPE_CHECKING:
    from ..profile import ModelProfile
    from .base import Engine
    from .config import EngineConfig


@dataclass(frozen=True, slots=True)
class EngineKind:
    """An engine that need not be imported yet. ``needs`` are modules, which ``extra`` installs."""

    name: str
    formats: tuple[str, ...]
    room: str
    engine: str
    config: str
    needs: tuple[str, ...] = ()
    extra: str | None = None

    def load_config(self) -> "type[EngineConfig]":
        """The class of its settings."""
        return getattr(importlib.import_module(f".{self.room}.config", __package__), self.config)

    def make_config(self, given: Mapping[str, Any]) -> "EngineConfig":
        """Its settings from those that the user gave. ConfigError for one that it has not."""
        config = self.load_config()
        known = {field.name for field in fields(config)}
        for name in given:
            if name not in known:
                shown = "what follows --" if name == "arguments" else f"--{name.replace('_', '-')}"
                raise ConfigError(f"{shown} has no effect on the {self.name} engine: leave it out")
        return config(**given)

    def require_installed(self) -> None:
        """ModelError when something that it needs is not there."""
        missing = [name for name in self.needs if importlib.util.find_spec(name) is None]
        if missing:
            install = f"pip install 'tapster[{self.extra}]'"
            raise ModelError(f"the {self.name} engine needs {missing[0]}, which is not installed: {install}")

    def open(self, profile: "ModelProfile", config: "EngineConfig | None") -> "Engine":
        """Load a model (blocking). ModelError, also where something is not installed."""
        self.require_installed()
        engine = getattr(importlib.import_module(f".{self.room}.engine", __package__), self.engine)
        return engine(profile, config)


ENGINES = {
    kind.name: kind
    for kind in (
        EngineKind("llama.cpp", ("gguf",), "llamacpp", "LlamaCppEngine", "LlamaCppConfig"),
        EngineKind(
            "transformers",
            ("hf",),
            "transformers",
            "TransformersEngine",
            "TransformersConfig",
            ("torch", "transformers"),
            "transformers",
        ),
        EngineKind("onnx", ("onnx",), "onnx", "OnnxEngine", "OnnxConfig", ("onnxruntime",), "onnx"),
        EngineKind("mlx", ("mlx", "hf"), "mlx", "MlxEngine", "MlxConfig", ("mlx", "mlx_lm"), "mlx"),
        EngineKind("vllm", ("vllm", "hf"), "vllm", "VllmEngine", "VllmConfig"),
    )
}
"""The first that reads a format is the one that runs it unless the user chooses another."""


def engine_kind(name: str) -> EngineKind:
    """The engine of that name. ConfigError for one that we do not know."""
    if name in ENGINES:
        return ENGINES[name]
    near = get_close_matches(name, ENGINES, cutoff=0.5)
    hint = f", did you mean {near[0]}?" if near else ""
    raise ConfigError(f"no engine is called {name!r}{hint}; engines are {', '.join(ENGINES)}")


def choose_engine(model_format: str, name: str | None = None) -> EngineKind:
    """The engine for a model of that format, or the one that the user named. ConfigError when they do not go
    together."""
    if name is None:
        return next(kind for kind in ENGINES.values() if model_format in kind.formats)
    kind = engine_kind(name)
    if model_format not in kind.formats:
        able = [other.name for other in ENGINES.values() if model_format in other.formats]
        raise ConfigError(
            f"the {name} engine cannot run a model in the format {model_format}: leave out --engine"
            f"{', or choose ' + ' or '.join(able) if able else ''}, or convert the model with tapster convert"
        )
    return kind
