"""The model as clients see it: its names, and what a response says about it."""

from dataclasses import dataclass
from hashlib import sha256
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from .errors import ApiError
from .settings import HttpSettings

if TYPE_CHECKING:
    from ...runtime.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Served:
    """The runtime behind a request, and the name that the model is served under."""

    runtime: "Runtime"
    settings: HttpSettings
    created: int

    @property
    def model_id(self) -> str:
        """The name in every response."""
        return self.settings.model_name or self.runtime.profile.name

    @property
    def fingerprint(self) -> str:
        """Changes when the model or the engine does, and with them possibly the answers of a seed."""
        profile, engine = self.runtime.profile, self.runtime.engine.capabilities.name
        facts = (profile.name, profile.file_bytes, profile.file_type, profile.parameters, engine)
        return f"fp_{sha256(repr(facts).encode()).hexdigest()[:12]}"

    def knows(self, name: str) -> bool:
        """Whether the model is called so."""
        return name == self.model_id or name in self.settings.aliases

    def head(self, object_type: str, id_prefix: str, created: int) -> dict[str, Any]:
        """How every body and every event of one response begins."""
        return {
            "id": f"{id_prefix}-{token_hex(12)}",
            "object": object_type,
            "created": created,
            "model": self.model_id,
            "system_fingerprint": self.fingerprint,
        }


def served_model(request: Request, name: str | None) -> Served:
    """The model that answers this request; 404 when it asks for another."""
    holder, settings = request.app.state.holder, request.app.state.settings
    served = Served(holder.require(), settings, holder.created)
    if name is not None and not served.knows(name):
        message = f"the model {name[:100]!r} is not served here: this server serves {served.model_id!r}"
        raise ApiError(404, message, param="model", code="model_not_found")
    return served
