"""What one comparison is asked to do. Light to import: the command line's defaults come from here."""

from dataclasses import dataclass
from math import inf
from pathlib import Path

from ...runtime.errors import ConfigError
from .contender import Contender

CHART_ENDINGS = (".png", ".svg")
SHORT_PROMPT_TOKENS = 32
STREAMS = 4


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """``prompt_tokens`` are those that prefill is timed with, ``new_tokens`` those of each timed answer.

    ``max_kld`` is the mean divergence in nats up to which a model may be recommended; ``kld_tokens`` how much text it
    is measured on. ``context`` and ``threads`` None leave the choice to each engine.
    """

    contenders: tuple[Contender, ...]
    source: Contender | None = None
    repeat: int = 3
    prompt_tokens: int = 512
    new_tokens: int = 64
    has_kld: bool = True
    kld_tokens: int = 2048
    max_kld: float = 0.1
    threads: int | None = None
    context: int | None = None
    chart: Path | None = None
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        least = {
            "--repeat": (self.repeat, 1),
            "--prompt-tokens": (self.prompt_tokens, 1),
            "--tokens": (self.new_tokens, 2),
            "--kld-tokens": (self.kld_tokens, 2),
            "--threads": (1 if self.threads is None else self.threads, 1),
        }
        for name, (value, bound) in least.items():
            if value < bound:
                raise ConfigError(f"{name} must be at least {bound}, not {value}")
        if not 0 <= self.max_kld < inf:
            raise ConfigError(f"--max-kld must be a number of nats of at least 0, not {self.max_kld:g}")
        if not 0 < self.timeout_s < inf:
            raise ConfigError(f"--timeout-s must be more than 0, not {self.timeout_s:g}")
        if self.source and not self.has_kld:
            raise ConfigError("--source is what the divergence is measured against: leave out --no-kld")
        self._check_chart()

    def _check_chart(self) -> None:
        if self.chart is None:
            return
        if self.chart.suffix.lower() not in CHART_ENDINGS:
            raise ConfigError(f"--chart {self.chart}: the name must end with {' or '.join(CHART_ENDINGS)}")
        if not self.chart.absolute().parent.is_dir():
            raise ConfigError(f"--chart {self.chart}: there is no folder {self.chart.absolute().parent}")
