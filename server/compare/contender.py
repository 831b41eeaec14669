"""What is compared: a model, and the engine that is to run it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...runtime.engines.registry import ENGINES, engine_kind
from ...runtime.errors import ConfigError
from ...runtime.models import REMOTE


@dataclass(frozen=True, slots=True)
class Contender:
    """``model`` as the user names it, ``engine`` None for the one that reads its format."""

    model: str
    engine: str | None = None

    @property
    def is_remote(self) -> bool:
        """Whether another machine's server computes it, of which only speeds can be seen."""
        return self.model.startswith(REMOTE)

    def __str__(self) -> str:
        return f"{self.model}@{self.engine}" if self.engine else self.model


def parse_contender(text: str) -> Contender:
    """``MODEL`` or ``MODEL@ENGINE``. A path that exists is a path, whatever it has an @ in. ConfigError for an engine
    that there is not."""
    model, at, engine = text.rpartition("@")
    if not at or not model or "/" in engine or text.startswith(REMOTE) or _exists(text):
        return Contender(text)
    if engine not in ENGINES:
        try:
            engine_kind(engine)
        except ConfigError as error:
            raise ConfigError(f"{text}: there is no such file, and {error}") from None
    return Contender(model, engine)


def parse_contenders(texts: Sequence[str]) -> tuple[Contender, ...]:
    """All of them. ConfigError for one that is given twice."""
    found = tuple(map(parse_contender, texts))
    for contender, count in Counter(found).items():
        if count > 1:
            raise ConfigError(f"{contender} is given {count} times: name each MODEL once")
    return found


def labels(contenders: Sequence[Contender]) -> list[str]:
    """Short names for a table: the last part of a path where no other contender has the same."""
    short = [str(Contender(_last_part(contender), contender.engine)) for contender in contenders]
    seen = Counter(short)
    return [name if seen[name] == 1 else str(whole) for name, whole in zip(short, contenders, strict=True)]


def _last_part(contender: Contender) -> str:
    is_path = not contender.is_remote and _exists(contender.model)
    return Path(contender.model).resolve().name if is_path else contender.model


def _exists(text: str) -> bool:
    try:
        return Path(text).expanduser().exists()
    except (OSError, RuntimeError):  # a name too long for any file; ~somebody, who has no home here
        return False
