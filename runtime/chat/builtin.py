"""Chat templates by name, for models that carry none."""

from difflib import get_close_matches
from pathlib import Path

from ..errors import ConfigError

BUILTIN_NAMES = ("alpaca", "chatml", "kodalite", "llama3", "memphis", "memphis-rationale", "zephyr")

_FOLDER = Path(__file__).with_name("builtin")


def builtin_source(name: str) -> str:
    """The Jinja source of a built-in template. ConfigError for a name that is none of ``BUILTIN_NAMES``."""
    if name not in BUILTIN_NAMES:
        near = get_close_matches(name.lower(), BUILTIN_NAMES, n=1)
        hint = f", did you mean {near[0]}?" if near else "."
        known = ", ".join(BUILTIN_NAMES)
        raise ConfigError(f"no built-in chat template {name!r}{hint} Known: {known}; or give a .jinja file")
    return (_FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
