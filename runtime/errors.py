"""Every error tapster raises on purpose.

    TapsterError
    ├── ModelError          a model cannot be found, read or loaded      command line: exit 2
    ├── ConfigError         an option or a setting makes no sense        command line: exit 2
    ├── ConversionError     a checkpoint cannot be converted             command line: exit 2
    ├── ProofError          an artifact is not what its source was       command line: exit 1
    ├── TrainingError       training, or a teacher, failed               command line: exit 1
    ├── RequestError        a request is wrong; nothing ran              HTTP 400, names the parameter
    │   └── ContextOverflow   it does not fit; carries both numbers
    ├── Overloaded          the queue is full; try again later           HTTP 429
    ├── EngineError         the engine failed or is shutting down        HTTP 500 or 503
    └── TargetError         a server that is measured does not answer    command line: exit 2

A message is one line that says what was wrong, the value, and what to do.
"""


class TapsterError(Exception):
    """The root: catch this to catch everything tapster raises on purpose."""


class ModelError(TapsterError):
    """A model cannot be found, read or loaded."""


class ConfigError(TapsterError):
    """An option or a setting makes no sense."""


class ConversionError(TapsterError):
    """A checkpoint cannot be read, or the target cannot hold it."""


class ProofError(TapsterError):
    """An artifact was made and is not what its source was."""


class TrainingError(TapsterError):
    """Training cannot go on, or a teacher's signal cannot be made or read."""


class RequestError(TapsterError):
    """A request is wrong. ``param`` is the request field at fault, when there is one."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class ContextOverflow(RequestError):
    """The prompt does not fit into the context."""

    def __init__(self, prompt_tokens: int, context_length: int, param: str = "messages") -> None:
        super().__init__(
            f"the prompt is {prompt_tokens} tokens and the context holds {context_length}, of which at least one "
            f"is for the answer: shorten the prompt or serve the model with a larger --context",
            param=param,
            code="context_length_exceeded",
        )
        self.prompt_tokens = prompt_tokens
        self.context_length = context_length


class Overloaded(TapsterError):
    """The queue is full. ``retry_after_s`` is a guess at when there is room again."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class EngineError(TapsterError):
    """The engine failed or is shutting down. ``is_shutdown`` tells which: 503 rather than 500."""

    def __init__(self, message: str, is_shutdown: bool = False) -> None:
        super().__init__(message)
        self.is_shutdown = is_shutdown


class TargetError(TapsterError):
    """A server under test cannot be reached, refuses, or breaks off. ``status`` is its HTTP status."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
