"""How the HTTP door is set up."""

from dataclasses import dataclass

from ...runtime.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """Settings of the HTTP door.

    ``model_name`` is what clients call the model (None: the profile's name), ``aliases`` are further names.
    With ``api_keys`` all but /health, /ready and the documentation wants one of them as a bearer token.
    """

    model_name: str | None = None
    aliases: tuple[str, ...] = ()
    api_keys: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    max_body_bytes: int = 4 * 2**20
    max_choices: int = 8

    def __post_init__(self) -> None:
        if self.max_body_bytes < 1:
            raise ConfigError(f"--max-body-bytes must be at least 1, not {self.max_body_bytes}")
        if not 1 <= self.max_choices <= 128:
            raise ConfigError(f"--max-choices must be between 1 and 128, not {self.max_choices}")
        for key in self.api_keys:
            if not key or not key.isascii() or not key.isprintable() or " " in key:
                raise ConfigError("an API key must be printable ASCII without spaces, and not empty")
