"""What one benchmark run is asked to do. Light to import: the command line's defaults come from here."""

import secrets
from dataclasses import dataclass, field
from math import inf

from ...runtime.errors import ConfigError

SCENARIOS = {
    "single": "one prompt of 31 tokens, 96 new",
    "concurrent": "8 different prompts at once, 50 tokens each, 96 new",
    "shared": "8 prompts at once with the same first 712 tokens and 22 of their own, 32 new",
    "mixed": "4 streams are running when a prompt of 1,000 tokens arrives; figures are of the 4",
    "second-turn": "a chat opened by 1,000 tokens, then its follow-up; figures are of the follow-up",
}


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """``what`` is a URL, or a MODEL to serve for the run.

    ``seed`` makes the prompts; a fresh one a run keeps a server's prefix cache from knowing them.
    ``ceiling_model`` asks for the raw replay of a server that runs elsewhere. ``replay_threads`` None is
    every physical core that may be used.
    """

    what: str = "demo"
    scenarios: tuple[str, ...] = tuple(SCENARIOS)
    repeat: int = 3
    has_ceiling: bool = False
    ceiling_model: str | None = None
    is_contended: bool = False
    is_chat: bool = False
    replay_threads: int | None = None
    model_id: str | None = None
    api_key: str | None = None
    serve_args: tuple[str, ...] = ()
    timeout_s: float = 600.0
    seed: int = field(default_factory=lambda: secrets.randbelow(2**32))

    def __post_init__(self) -> None:
        for name, value in (("--repeat", self.repeat), ("--replay-threads", self.replay_threads or 1)):
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}")
        if not (0 < self.timeout_s < inf):
            raise ConfigError(f"--timeout-s must be more than 0, not {self.timeout_s:g}")
        if self.is_url:
            self._check_url_options()
        elif self.ceiling_model is not None:
            raise ConfigError("--ceiling-model is for a server at a URL; with a MODEL use --ceiling")
        if self.wants_ceiling and self.is_chat:
            raise ConfigError("--chat wraps the prompts in a template the raw replay cannot know: drop one of the two")

    def _check_url_options(self) -> None:
        if self.has_ceiling and self.ceiling_model is None:
            raise ConfigError("--ceiling with a URL needs the model as a file: --ceiling-model MODEL")
        if self.is_contended:
            raise ConfigError("--contended starts servers of its own: give a MODEL, not a URL")
        if self.serve_args:
            raise ConfigError("--serve-args is for a server started here: give a MODEL, not a URL")

    @property
    def is_url(self) -> bool:
        return self.what.startswith(("http://", "https://"))

    @property
    def wants_ceiling(self) -> bool:
        return self.has_ceiling or self.ceiling_model is not None
