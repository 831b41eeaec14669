"""The engine contract: token ids in, tokens out. Text, stops, templates and roles are the runtime's."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..errors import EngineError
from ..sampling import SamplingParams


@dataclass(frozen=True, slots=True)
class Logprob:
    """One token's log-probability (natural logarithm) under the model's unmodified distribution."""

    id: int
    logprob: float


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token.

    ``logprob`` and ``top`` are None unless asked for; ``top`` is sorted, most likely first. ``is_eog`` marks an
    end-of-generation token: it is the last one, and never part of the answer.
    """

    id: int
    is_eog: bool = False
    logprob: float | None = None
    top: tuple[Logprob, ...] | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do with its model."""

    name: str
    context_length: int
    max_parallel: int
    logprobs: bool = True
    embeddings: bool = True
    grammar: bool = True


class Tokenizer(Protocol):
    """Text to ids and back. ``piece`` is the exact bytes of a token; concatenated pieces are the text."""

    vocab_size: int
    bos_id: int | None
    eos_id: int | None
    add_bos: bool
    eog_ids: frozenset[int]

    def encode(self, text: str, *, add_special: bool = False, parse_special: bool = True) -> list[int]:
        """Ids of ``text``. ``add_special`` adds bos/eos as the model declares; ``parse_special`` reads control
        tokens written out in the text (a chat template's) as such."""
        ...

    def piece(self, token_id: int) -> bytes:
        """The bytes of one token; for a control token the bytes of its name."""
        ...

    def is_control(self, token_id: int) -> bool:
        """Whether the token is a control token, whose text is not part of an answer."""
        ...


class Generation(Protocol):
    """One running sequence: iterate it for its tokens. After the end, ``finish_reason`` says why."""

    finish_reason: str | None
    """``eog``, ``length`` or ``cancelled``; None while it runs."""
    cached_tokens: int
    """How many tokens of the prompt came from the prefix cache; known with the first token."""
    prompt_logprobs: list[Token] | None
    """With ``SamplingParams.prompt_logprobs``: one per prompt token, the first without a log-probability."""

    def __aiter__(self) -> AsyncIterator[Token]: ...

    def cancel(self, keep_tokens: int | None = None) -> None:
        """Stop within one step. The cache keeps the prompt and the first ``keep_tokens`` generated tokens for a
        later prompt to begin with (None: all that were delivered)."""
        ...


class Engine(Protocol):
    """A loaded model that makes tokens. Safe to call from the event loop it was started on."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer."""
        ...

    def generate(self, prompt_ids: Sequence[int], params: SamplingParams) -> Generation:
        """Queue a sequence. Raises RequestError, ContextOverflow, Overloaded or EngineError before anything runs."""
        ...

    async def embed(self, ids: Sequence[int]) -> list[float]:
        """The embedding of a token sequence, of unit length."""
        ...

    def stats(self) -> dict[str, int]:
        """Counts of what the engine holds and does now, for people and monitoring."""
        ...

    @property
    def failed(self) -> EngineError | None:
        """Why the engine is gone, once it is."""
        ...

    def on_failure(self, callback: Callable[[EngineError], None]) -> None:
        """Call back on the event loop when the engine fails."""
        ...

    def abort(self) -> None:
        """End everything that waits or runs with an EngineError that says the engine is shutting down."""
        ...

    def close(self) -> None:
        """Stop the engine and free the model. Running sequences end with EngineError."""
        ...
