"""What the scheduler moves around: a sequence of tokens on its way through the model, and a text to embed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...sampling import SamplingParams
from ..base import Token
from .generation import LocalGeneration
from .sampler import Sampler


@dataclass(slots=True, eq=False)
class LocalSequence:
    """One sequence: its prompt, what was generated, and how much of both is in the cache.

    ``tokens`` is prompt plus generated. A sequence with one token pending decodes; with more it prefills.
    """

    prompt: list[int]
    params: SamplingParams
    sampler: Sampler
    max_new: int
    generation: LocalGeneration
    tokens: list[int] = field(init=False)
    seq_id: int | None = None
    """Where its cache is, by the engine's own numbers; None while it has none."""
    num_computed: int = 0
    cached_tokens: int | None = None
    prompt_logprobs: list[Token] = field(default_factory=list)
    cancelled_at: int | None = None
    """Number of tokens worth keeping in the cache, set from another thread when the sequence is cancelled."""

    def __post_init__(self) -> None:
        self.tokens = list(self.prompt)

    @property
    def pending(self) -> int:
        """Tokens that are not in the cache yet."""
        return len(self.tokens) - self.num_computed

    @property
    def num_generated(self) -> int:
        """Tokens generated so far."""
        return len(self.tokens) - len(self.prompt)

    @property
    def is_scoring(self) -> bool:
        """Whether logits of the prompt's tokens are still wanted."""
        wanted = self.params.prompt_logprobs is not None
        return wanted and len(self.prompt_logprobs) < len(self.prompt)


@dataclass(slots=True, eq=False)
class EmbeddingJob:
    """A token sequence whose hidden states are pooled into one vector."""

    ids: Sequence[int]
    resolve: Callable[[list[float] | Exception], None]
    seq_id: int | None = None
    num_computed: int = 0
    pooled: Any = None
    is_cancelled: bool = False
