"""The model's way from loading to shut down, as the HTTP door sees it."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from ...runtime.errors import EngineError
from .errors import ApiError, unavailable

if TYPE_CHECKING:
    from ...runtime.runtime import Runtime

Status = Literal["loading", "ready", "draining", "failed"]


class ModelHolder:
    """Holds the runtime once it is there, and says whether requests are answered.

        loading ──> ready ──> draining
           └──────────┴────────> failed

    Threads: ``load`` may run anywhere; each step is one assignment, and there is no way back.
    """

    def __init__(self) -> None:
        self.status: Status = "loading"
        self.runtime: Runtime | None = None
        self.failure: str | None = None
        self.created = int(time.time())

    def load(self, open_runtime: "Callable[[], Runtime]") -> None:
        """Open the runtime and be ready. When that fails the holder is failed, and the error goes on."""
        try:
            runtime = open_runtime()
        except Exception as error:
            self.fail(str(error))
            raise
        runtime.on_failure(lambda error: self.fail(str(error)))
        self.runtime = runtime
        if self.status == "loading":
            self.status = "ready"

    def drain(self) -> None:
        """Take no new requests; the running ones go on."""
        if self.status != "failed":
            self.status = "draining"

    def fail(self, message: str) -> None:
        """Take no new requests, for good. The first message counts."""
        if self.status != "failed":
            self.failure = message
            self.status = "failed"

    def observe(self, error: Exception) -> None:
        """Fail when the error says that the engine has."""
        if isinstance(error, EngineError) and not error.is_shutdown:
            self.fail(str(error))

    def require(self) -> "Runtime":
        """The runtime, or the error that says why there is none to use."""
        if self.status == "ready" and self.runtime is not None:
            return self.runtime
        raise self._why_not()

    def _why_not(self) -> ApiError:
        match self.status:
            case "draining":
                return unavailable("the server is shutting down", "shutting_down", 5)
            case "failed":
                return ApiError(500, f"the engine has failed: {self.failure}", code="engine_error")
            case _:
                return unavailable("the model is being loaded: try again shortly", "model_loading", 1)
