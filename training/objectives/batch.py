"""What a term of the loss sees of a batch.

A batch is first reduced to its *predictions*: the positions whose next token carries a label, of all rows one after the
other. Nothing is ever kept for a position without a label, and logits exist for one chunk of predictions at a time.

Sizes: B rows, T positions, N predictions, n predictions of a chunk, D hidden size, V vocabulary, k stored logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Dense:
    """A teacher's whole distributions: natural log-probabilities, (n, V) float32, at temperature 1.

    Where the teacher has other tokens than the student and nothing to say at a position, a row is -inf throughout.
    """

    log_probs: Tensor


@dataclass(frozen=True, slots=True)
class Sparse:
    """Parts of a teacher's distributions at temperature 1.

    ``ids`` (n, k) int64 and ``log_probs`` (n, k) float32, in descending order; entries with -inf are padding. Where
    ``is_sample``, the entries were drawn at random and ``log_probs`` are the logs of their estimated shares, which sum
    to one; otherwise they are the top k with their true log-probabilities, and what they lack of one is missing mass.
    """

    ids: Tensor
    log_probs: Tensor
    is_sample: bool = False


Targets = Dense | Sparse


class TargetSource(Protocol):
    """A teacher's distributions at the predictions of one batch, handed out by the chunk."""

    def chunk(self, part: slice) -> Targets:
        """Of the predictions ``part``; computed or read when asked for, never for the whole batch."""
        ...


@dataclass(frozen=True, slots=True)
class Rows:
    """What is known of each row of a batch as a whole: ``columns`` of the data set, (B,) float32 each.

    Among them: ``output_entropy`` (nats), ``self_consistency``, ``difficulty_score``; ``group`` and ``rank`` for ranked
    answers to one question (rank 0 is the best). ``lengths`` (B,) int64: how many predictions each row has.
    """

    count: int
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    lengths: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Spans:
    """Stretches of text whose borders are token borders in the student's tokenizer and in the teacher's.

    ``of_prediction`` (N,) int64: the stretch that each prediction's label lies in, -1 for none. ``teacher_log_probs``
    (S,) float32: what the teacher gives each stretch as a whole, in nats.
    """

    of_prediction: Tensor
    teacher_log_probs: Tensor


@dataclass(frozen=True, slots=True)
class Predictions:
    """A chunk of predictions. ``logits`` (n, V) float32 of the student; ``labels`` (n,) the tokens that follow; ``row``
    (n,) which row of the batch each is of; ``targets`` the teacher's, where there is one. ``is_counted``: whether terms
    with a state may add to their statistics."""

    logits: Tensor
    labels: Tensor
    row: Tensor
    rows: Rows
    targets: Targets | None = None
    is_counted: bool = True
    _log_probs: dict[float, Tensor] = field(default_factory=dict, repr=False)

    def log_probs(self, temperature: float = 1.0) -> Tensor:
        """(n, V) of the student at ``temperature``, computed once for all terms."""
        if temperature not in self._log_probs:
            logits = self.logits if temperature == 1.0 else self.logits / temperature
            self._log_probs[temperature] = logits.log_softmax(-1)
        return self._log_probs[temperature]

    def picked_log_probs(self, ids: Tensor, temperature: float = 1.0) -> Tensor:
        """(n, k) of the tokens ``ids`` (n, k) alone: cheaper than ``log_probs``, unless a term has asked for those."""
        from .picked import picked_log_probs  # here, for batches are described without torch

        if temperature in self._log_probs:
            return self._log_probs[temperature].gather(1, ids)
        return picked_log_probs(self.logits if temperature == 1.0 else self.logits / temperature, ids)

    def label_log_probs(self) -> Tensor:
        """(n,) of the tokens that follow."""
        return self.picked_log_probs(self.labels[:, None])[:, 0]


@dataclass(frozen=True, slots=True)
class Forward:
    """A forward pass of the student over one micro-batch.

    ``hidden`` (N, D): the last hidden states, after the final norm, at the predictions; ``head`` (V, D): the output
    matrix, with ``bias`` (V,) where there is one; ``labels``, ``row`` (N,); ``position`` (N,) of each prediction within
    its row. ``states``: the student's hidden states (B, T, D) after the embedding and after each layer, only where a
    term asked for them (``needs_states``), ``teacher_states`` the same of the teacher, ``mask`` (B, T) the positions
    that are no padding. ``embedding`` (V, D): the input embedding. ``step``: optimiser steps done.
    """

    hidden: Tensor
    head: Tensor
    labels: Tensor
    row: Tensor
    position: Tensor
    rows: Rows
    step: int
    bias: Tensor | None = None
    targets: TargetSource | None = None
    embedding: Tensor | None = None
    states: tuple[Tensor, ...] | None = None
    teacher_states: tuple[Tensor, ...] | None = None
    mask: Tensor | None = None
    spans: Spans | None = None
    is_training: bool = True


@dataclass(frozen=True, slots=True)
class GlobalBatch:
    """Sums over all micro-batches and processes of one optimiser step, by which terms are normalised.

    ``predictions`` and ``rows`` count; ``sums`` holds what terms asked for with ``row_weights``: the sum over all
    predictions of the weight of their row, by the term's label.
    """

    predictions: int
    rows: int
    micro_batches: int
    """Over all processes: what a term that knows no positions, like an embedding anchor, is divided by."""
    sums: Mapping[str, float] = field(default_factory=dict)
