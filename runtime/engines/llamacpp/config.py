"""The llama.cpp engine's settings; the command line takes its defaults from here."""

from dataclasses import dataclass

from ...errors import ConfigError

DEFAULT_CONTEXT = 8192


@dataclass(frozen=True, kw_only=True)
class LlamaCppConfig:
    """How much the engine may hold and do at once. None lets it decide.

    ``context`` is the longest sequence in tokens (default: the model's own, at most 8192), ``cells`` the size of the
    key-value cache that all sequences and kept prefixes share (default: one context, at least 8192 tokens).
    ``kept`` is how many tokens of prefixes not in use are kept in ordinary memory (default: a quarter of cells).
    ``threads`` fixes the number of threads (default: adapted to what the machine has free).
    """

    context: int | None = None
    cells: int | None = None
    kept: int | None = None
    threads: int | None = None
    max_parallel: int = 16
    max_waiting: int = 256
    batch_tokens: int = 512
    gpu_layers: int | None = None

    def __post_init__(self) -> None:
        limits = {
            "context": 8,
            "cells": 8,
            "kept": 0,
            "threads": 1,
            "max_parallel": 1,
            "max_waiting": 0,
            "batch_tokens": 32,
        }
        for name, least in limits.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least {least}, not {value}")
            if value is not None and value >= 2**31:
                raise ConfigError(f"--{name.replace('_', '-')} must be less than {2**31}, not {value}")
        if self.max_parallel > 64:
            raise ConfigError(f"--max-parallel must be at most 64, not {self.max_parallel}")
        if self.batch_tokens < self.max_parallel:
            raise ConfigError(
                f"--batch-tokens must be at least --max-parallel ({self.max_parallel}), not {self.batch_tokens}"
            )

    def context_length(self, trained: int) -> int:
        """Tokens a sequence may have, for a model trained with ``trained``."""
        return self.context or min(trained or DEFAULT_CONTEXT, DEFAULT_CONTEXT)

    def num_cells(self, context_length: int) -> int:
        """Size of the cache in tokens; a full context always fits."""
        if self.cells is not None and self.cells < context_length:
            raise ConfigError(
                f"--cells {self.cells} holds less than one context of {context_length} tokens: raise it, or lower "
                "--context"
            )
        return max(self.cells or DEFAULT_CONTEXT, context_length)
