"""The contract of a term of the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from .batch import Forward, GlobalBatch, Predictions, Rows


class Term(Protocol):
    """What all terms have. A term is made once a stage: ``Class(options, label)``.

    A term is one of three kinds, by the method it has: ``per_prediction`` (most: a number for each prediction, from one
    chunk of logits), ``from_log_probs`` (of the log-probabilities of the labels alone, across predictions), or
    ``value`` (anything else). What it cannot do without is in its options (``options.needs``), so that a recipe is
    refused before anything loads. Methods that a term may have besides: ``row_weights``, ``begin`` and those of
    ``StatefulTerm``.
    """

    label: str
    """What a recipe calls it, with a number where a stage has several of its kind."""


@runtime_checkable
class PredictionTerm(Term, Protocol):
    """A term that is a sum over predictions: ``sum(per_prediction) / normalizer``."""

    def per_prediction(self, chunk: Predictions) -> Tensor:
        """(n,) float32; with gradients to ``chunk.logits``."""
        ...

    def normalizer(self, batch: GlobalBatch) -> float:
        """What the sum over the whole global batch is divided by."""
        ...


@runtime_checkable
class WeightedTerm(Term, Protocol):
    """A term of any kind that is normalised by weights of rows."""

    def row_weights(self, rows: Rows) -> Tensor | None:
        """(B,) a weight for each prediction of a row; None for one. Its sum over all predictions of the global batch
        arrives as ``GlobalBatch.sums[label]``."""
        ...


@runtime_checkable
class LogProbTerm(Term, Protocol):
    """A term of the labels' log-probabilities."""

    def from_log_probs(self, log_probs: Tensor, forward: Forward, batch: GlobalBatch) -> Tensor:
        """A scalar, this micro-batch's part of the term (already normalised), from (N,) log-probabilities."""
        ...


@runtime_checkable
class ValueTerm(Term, Protocol):
    """Any other term."""

    def value(self, forward: Forward, batch: GlobalBatch) -> Tensor:
        """A scalar: this micro-batch's part of the term, already normalised."""
        ...


@runtime_checkable
class AnchoredTerm(Term, Protocol):
    """A term that looks back to where the stage began."""

    def begin(self, embedding: Tensor) -> None:
        """Keep what is needed of the weights that the stage begins with: the input embedding, (V, D)."""
        ...


@runtime_checkable
class CalibratedTerm(Term, Protocol):
    """A term that looks at the training set's columns before it begins."""

    def calibrate(self, columns: Mapping[str, Sequence[float]]) -> None: ...


@runtime_checkable
class StatefulTerm(Term, Protocol):
    """A term that learns as training goes. Its state is saved in every checkpoint."""

    def after_step(self, step: int, sums: Mapping[str, float]) -> dict[str, float]:
        """Called once after each optimiser step, on every process with the same ``sums`` (of ``statistics`` over all
        processes and micro-batches). Returns what to log."""
        ...

    def summary(self, sums: Mapping[str, float]) -> dict[str, float]:
        """What ``sums`` say, for a log; nothing is learned from them: for an evaluation."""
        ...

    def statistics(self) -> dict[str, float]:
        """Sums gathered since they were last asked for."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...
