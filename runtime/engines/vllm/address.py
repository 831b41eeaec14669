"""Where vLLM servers are: ``vllm://host:8000``, or several: ``vllm://h1:8000,h2:8000/prefix``."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from ...errors import ConfigError

_DEFAULT_PORTS = {"vllm": 8000, "vllms": 443, "http": 80, "https": 443}
_EXAMPLE = "vllm://host:8000 or vllm://h1:8000,h2:8000"


@dataclass(frozen=True, slots=True)
class Address:
    """One server. ``prefix`` is the path before its own, without a slash at the end."""

    host: str
    port: int
    is_tls: bool = False
    prefix: str = ""

    @property
    def authority(self) -> str:
        """Host and port as the Host header wants them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{'https' if self.is_tls else 'http'}://{self.authority}{self.prefix}"


def parse_url(spec: str) -> tuple[tuple[Address, ...], str | None]:
    """The servers that a URL with one or more hosts names, and the model where it names one. Raises ConfigError.

    ``vllms`` and ``https`` are TLS. The path is that of all hosts; a ``/v1`` at its end is left out, for the endpoints
    add it. ``vllm://host:8000#name`` is one of several models that the servers have, such as an adapter.
    """
    spec, _, model_id = spec.partition("#")
    scheme, _, rest = spec.partition("://")
    if scheme not in _DEFAULT_PORTS or not rest:
        raise ConfigError(f"{spec} is no URL of a vLLM server: it should look like {_EXAMPLE}")
    hosts, _, path = rest.partition("/")
    if "?" in rest or "@" in hosts:
        raise ConfigError(
            f"{_without_secret(spec)}: a vLLM URL has hosts and a path only; a key goes into VLLM_API_KEY"
        )
    prefix = f"/{path}".rstrip("/").removesuffix("/v1").rstrip("/")
    found = tuple(_address(host, scheme, prefix, spec) for host in hosts.split(","))
    if len(set(found)) < len(found):
        raise ConfigError(f"{spec} names a server twice")
    return found, model_id or None


def _address(text: str, scheme: str, prefix: str, spec: str) -> Address:
    try:
        parts = urlsplit(f"//{text.strip()}")
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{spec} is no URL: {error}") from None
    if not parts.hostname or port == 0:
        raise ConfigError(f"{spec} is no URL of a vLLM server: it should look like {_EXAMPLE}")
    return Address(parts.hostname, port or _DEFAULT_PORTS[scheme], scheme in ("vllms", "https"), prefix)


def _without_secret(spec: str) -> str:
    scheme, _, rest = spec.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"
