"""A slot scheduler without its thread: sequences go in, steps are taken by hand, tokens are gathered."""

from collections.abc import Sequence
from typing import Any

from tapster.runtime.engines.base import Token
from tapster.runtime.engines.local.generation import LocalGeneration
from tapster.runtime.engines.local.sampler import Sampler
from tapster.runtime.engines.local.sequence import LocalSequence
from tapster.runtime.engines.slots.scheduler import SlotScheduler
from tapster.runtime.sampling import SamplingParams

GREEDY: dict[str, Any] = {"temperature": 0.0}


class Driven:
    """The scheduler, and what its sink was told: ``tokens``, ``finished`` and ``failures`` by sequence."""

    def __init__(
        self, model: Any, *, eog: Sequence[int] = (), parallel: int = 4, batch: int = 64, vocab: int | None = None
    ) -> None:
        self.model = model
        self.eog = frozenset(eog)
        self.scheduler = SlotScheduler(
            model,
            vocab_size=vocab or model.vocab_size,
            eog_ids=self.eog,
            max_parallel=parallel,
            batch_tokens=batch,
        )
        self.scheduler.sink = self
        self.tokens: dict[LocalSequence, list[Token]] = {}
        self.finished: dict[LocalSequence, str] = {}
        self.failures: dict[LocalSequence, str] = {}
        self._in_step: set[LocalSequence] = set()

    def add(self, prompt: Sequence[int], max_tokens: int, **options: Any) -> LocalSequence:
        """Queue a prompt."""
        params = SamplingParams(max_tokens=max_tokens, **{**GREEDY, **options})
        sampler = Sampler(params, vocab_size=self.model.vocab_size, eog_ids=self.eog, context_length=200)
        seq = LocalSequence(list(prompt), params, sampler, max_tokens, LocalGeneration(lambda keep: None))
        self.tokens[seq] = []
        self.scheduler.waiting.append(seq)
        return seq

    def step(self) -> None:
        """One step, in which a sequence may have at most one event."""
        self._in_step.clear()
        self.scheduler.step(lambda: None)

    def finish(self) -> None:
        """Steps until nothing waits or runs."""
        for _ in range(5000):
            if not self.scheduler.running and not self.scheduler.waiting:
                return
            self.step()
        raise AssertionError("the scheduler does not come to an end")

    def ids(self, seq: LocalSequence) -> list[int]:
        """Token ids generated for a sequence."""
        return [token.id for token in self.tokens[seq]]

    def run(self, prompt: Sequence[int], max_tokens: int, **options: Any) -> list[int]:
        """One prompt from beginning to end."""
        seq = self.add(prompt, max_tokens, **options)
        self.finish()
        return self.ids(seq)

    def token(self, seq: LocalSequence, token: Token, finish: str | None) -> None:
        self._note(seq)
        self.tokens[seq].append(token)
        if finish:
            self.finished[seq] = finish

    def ended(self, seq: LocalSequence, finish: str) -> None:
        self._note(seq)
        self.finished[seq] = finish

    def failed(self, seq: LocalSequence, reason: str) -> None:
        self._note(seq)
        self.failures[seq] = reason

    def _note(self, seq: LocalSequence) -> None:
        assert seq not in self._in_step
        assert seq not in self.finished
        assert seq not in self.failures
        self._in_step.add(seq)
