"""The sequences that decode together: their caches as one, and the tokens that go in next.

Where the choice is the row's maximum it is made on the device, and the next step starts from it before anyone has read
it: the device never waits for Python. Such a token is delivered one step later than it is computed. Rows that a
sampler or a log-probability wants come to this side, and their tokens are delivered in the same step.

One sequence alone keeps mlx-lm's plain caches, which need no mask; several share batch caches, left-padded.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..local.sequence import LocalSequence
from . import caches
from .caches import Caches
from .model import gone

if TYPE_CHECKING:
    import mlx.core as mx


class DecodeBatch:
    """Belongs to the thread that computes. ``rows`` are the sequences in the order of the batch."""

    def __init__(self, model: Callable[..., "mx.array"], vocab_size: int, eog_ids: frozenset[int]) -> None:
        self.rows: list[LocalSequence] = []
        self._model = model
        self._vocab_size = vocab_size
        self._eog_ids = eog_ids
        self._caches: Caches = []
        self._inputs: mx.array | None = None
        self._undelivered: list[bool] = []
        """Per row whether the token that went in last, or goes in next, was chosen on the device and not read yet."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_bytes(self) -> int:
        """Memory that the caches hold."""
        return caches.num_bytes(self._caches)

    def join(self, arrivals: Sequence[tuple[LocalSequence, Caches]]) -> None:
        """Take in sequences of which all but the last token is in their caches."""
        import mlx.core as mx

        if not arrivals:
            return
        together = [own for _, own in arrivals]
        if len(self.rows) == 1:
            together.insert(0, self._caches)
        if len(self.rows) > 1:
            for batch, more in zip(self._caches, caches.merged(together), strict=True):
                batch.extend(more)
        else:
            self._caches = together[0] if len(together) == 1 else caches.merged(together)
        tokens = mx.array([seq.tokens[-1] for seq, _ in arrivals], dtype=mx.uint32)
        self._inputs = tokens if self._inputs is None else mx.concatenate([self._inputs, tokens])
        self.rows.extend(seq for seq, _ in arrivals)
        self._undelivered.extend([False] * len(arrivals))

    def pending(self) -> list[tuple[LocalSequence, bool]]:
        """Per sequence whether its next input was chosen on the device and not delivered yet."""
        return list(zip(self.rows, self._undelivered, strict=True))

    def start(self, *, compute: bool = True) -> "Step":
        """Begin to compute the next tokens. What the last step chose on the device can be read meanwhile.

        Without ``compute`` only that is read.
        """
        inputs, undelivered = self._inputs, self._undelivered
        assert inputs is not None
        if not compute:
            return Step(list(self.rows), inputs, undelivered)
        logits = self._model(inputs[:, None], cache=self._caches)[:, -1, : self._vocab_size]
        for seq in self.rows:
            seq.num_computed += 1
        wanted = [row for row, seq in enumerate(self.rows) if not is_chosen_on_device(seq)]
        self._undelivered = [row not in wanted for row in range(len(self.rows))]
        return Step(list(self.rows), inputs, undelivered, *self._begin(logits, wanted), wanted)

    def _begin(self, logits: "mx.array", wanted: list[int]) -> tuple["mx.array | None", "mx.array | None"]:
        """The device's choice, where it is wanted, and the rows that are wanted on this side; both on their way."""
        import mlx.core as mx

        chosen = rows = None
        if len(wanted) < len(self.rows):
            chosen = mx.argmax(self._allowed(logits), axis=-1).astype(mx.uint32)
        if wanted:
            rows = (logits if chosen is None else logits[mx.array(wanted)]).astype(mx.float32)
        mx.async_eval(*(array for array in (chosen, rows) if array is not None))
        return chosen, rows

    def _allowed(self, logits: "mx.array") -> "mx.array":
        """Without the ends of generation, for those that are not to end."""
        import mlx.core as mx

        endless = [seq.params.ignore_eog for seq in self.rows]
        if not any(endless) or not self._eog_ids:
            return logits
        is_eog = np.zeros(logits.shape[-1], bool)
        is_eog[sorted(self._eog_ids)] = True
        return mx.where(mx.array(endless)[:, None] & mx.array(is_eog)[None], -mx.inf, logits)

    def choose(self, step: "Step", tokens: dict[int, int]) -> None:
        """What goes in next: ``tokens`` by row where they were chosen on this side, the device's choice elsewhere."""
        import mlx.core as mx

        if not step.wanted:
            self._inputs = step.chosen if step.chosen is not None else self._inputs
            return
        ids: Any = step.chosen.tolist() if step.chosen is not None else [0] * len(step.rows)
        for row, token in tokens.items():
            ids[row] = token
        self._inputs = mx.array(ids, dtype=mx.uint32)

    def free(self) -> None:
        """Let everything go."""
        self.rows, self._caches, self._inputs, self._undelivered = [], [], None, []
        self._model = gone

    def cache_of(self, seq: LocalSequence) -> Caches:
        """A copy of a running sequence's cache."""
        if len(self.rows) == 1:
            return caches.clone(self._caches)
        return caches.extracted(self._caches, self.rows.index(seq))

    def leave(self, leaving: Sequence[LocalSequence]) -> None:
        """Let go of sequences and of their part of the cache."""
        import mlx.core as mx

        keep = [row for row, seq in enumerate(self.rows) if seq not in leaving]
        if len(keep) == len(self.rows):
            return
        if not keep:
            self._caches, self._inputs = [], None
        elif len(keep) == 1:
            self._caches = caches.extracted(self._caches, keep[0])
        else:
            for cache in self._caches:
                cache.filter(keep)
        if keep:
            assert self._inputs is not None
            self._inputs = self._inputs[mx.array(keep)]
        self.rows = [self.rows[row] for row in keep]
        self._undelivered = [self._undelivered[row] for row in keep]


class Step:
    """One step on its way."""

    def __init__(
        self,
        rows: list[LocalSequence],
        inputs: "mx.array",
        undelivered: list[bool],
        chosen: "mx.array | None" = None,
        logits: "mx.array | None" = None,
        wanted: Sequence[int] = (),
    ) -> None:
        self.rows = rows
        self.chosen = chosen
        self.wanted = wanted
        self._inputs = inputs
        self._undelivered = undelivered
        self._logits = logits

    def delivered_now(self) -> list[tuple[LocalSequence, int]]:
        """The tokens that the device chose in the step before, as soon as that is through."""
        if not any(self._undelivered):
            return []
        ids: Any = self._inputs.tolist()
        pairs = zip(self.rows, ids, self._undelivered, strict=True)
        return [(seq, token) for seq, token, is_new in pairs if is_new]

    def logits(self) -> list[tuple[int, LocalSequence, np.ndarray]]:
        """Rows that are wanted on this side, float32 and to be written to, when this step is through."""
        if self._logits is None:
            return []
        found: Any = np.array(self._logits)
        return [(row, self.rows[row], logits) for row, logits in zip(self.wanted, found, strict=True)]


def is_chosen_on_device(seq: LocalSequence) -> bool:
    """Whether only the maximum of the row matters, but perhaps for the ends of generation."""
    params = seq.params
    if params.top_logprobs is not None:
        return False
    is_plain = params.temperature <= 0 and not params.logit_bias and params.grammar is None
    has_penalties = params.repeat_penalty != 1 or params.frequency_penalty or params.presence_penalty
    return is_plain and not has_penalties
