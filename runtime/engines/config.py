"""What every engine's settings have in common; the command line takes its defaults from here."""

from dataclasses import dataclass
from typing import ClassVar

from ..errors import ConfigError

DEFAULT_CONTEXT = 8192


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How much an engine may hold and do at once. None lets it decide.

    ``context`` is the longest sequence in tokens (default: the model's own, at most 8192), ``threads`` the number of
    threads, ``max_parallel`` how many sequences run at once, ``max_waiting`` how many more requests may wait, and
    ``batch_tokens`` how many tokens a step holds at most. ConfigError for what is out of range.
    """

    LEAST: ClassVar[dict[str, int]] = {
        "context": 8,
        "threads": 1,
        "max_parallel": 1,
        "max_waiting": 0,
        "batch_tokens": 32,
    }

    MOST_PARALLEL: ClassVar[int] = 64

    context: int | None = None
    threads: int | None = None
    max_parallel: int = 16
    max_waiting: int = 256
    batch_tokens: int = 512

    def __post_init__(self) -> None:
        for name, least in self.LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least {least}, not {value}")
            if value is not None and value >= 2**31:
                raise ConfigError(f"--{name.replace('_', '-')} must be less than {2**31}, not {value}")
        if self.max_parallel > self.MOST_PARALLEL:
            raise ConfigError(f"--max-parallel must be at most {self.MOST_PARALLEL}, not {self.max_parallel}")
        if self.batch_tokens < self.max_parallel:
            raise ConfigError(
                f"--batch-tokens must be at least --max-parallel ({self.max_parallel}), not {self.batch_tokens}"
            )

    def context_length(self, trained: int) -> int:
        """Tokens a sequence may have, for a model trained with ``trained``."""
        return self.context or min(trained or DEFAULT_CONTEXT, DEFAULT_CONTEXT)
