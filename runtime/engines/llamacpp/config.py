"""The llama.cpp engine's settings."""

from dataclasses import dataclass
from typing import ClassVar

from ...errors import ConfigError
from ..config import DEFAULT_CONTEXT, EngineConfig


@dataclass(frozen=True, kw_only=True)
class LlamaCppConfig(EngineConfig):
    """``cells`` is the size of the key-value cache that all sequences and kept prefixes share (default: one context,
    at least 8192 tokens), ``kept`` how many tokens of prefixes not in use are kept in ordinary memory (default: a
    quarter of cells). ``threads`` fixes their number (default: adapted to what the machine has free).
    """

    LEAST: ClassVar[dict[str, int]] = {**EngineConfig.LEAST, "cells": 8, "kept": 0}

    cells: int | None = None
    kept: int | None = None
    gpu_layers: int | None = None

    def num_cells(self, context_length: int) -> int:
        """Size of the cache in tokens; a full context always fits."""
        if self.cells is not None and self.cells < context_length:
            raise ConfigError(
                f"--cells {self.cells} holds less than one context of {context_length} tokens: raise it, or lower "
                "--context"
            )
        return max(self.cells or DEFAULT_CONTEXT, context_length)
