"""The terms of a stage, summed: one pass over the predictions for all that read logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from ...runtime.errors import ConfigError
from .batch import Forward, GlobalBatch, Predictions, Rows
from .chunked import ChunkValues, label_log_probs, weighted_sums
from .options import Needs
from .registry import check_objective, labels_of, make_term, needs_of
from .schedules import value_at
from .select import with_lengths
from .term import AnchoredTerm, CalibratedTerm, LogProbTerm, PredictionTerm, StatefulTerm, Term, ValueTerm, WeightedTerm

if TYPE_CHECKING:
    from torch import Tensor

    from ..recipe.schema import Objective

Kind = TypeVar("Kind")


@dataclass(frozen=True, slots=True)
class Loss:
    """A micro-batch's part of the global batch's loss. Over all micro-batches and processes, parts add up to the
    whole."""

    total: Tensor
    """A scalar with gradients: each term times its weight, summed."""
    terms: dict[str, float]
    """Each term by its label, without its weight."""
    weights: dict[str, float]
    """At this step."""


class Assembly:
    """The objectives of a stage of ``total_steps``. Raises ConfigError for one that makes no sense.

    ``columns`` are the training set's, whole, for terms that calibrate themselves; ``chunk_size`` is how many
    predictions have logits at once (None: by the vocabulary's size).
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        *,
        total_steps: int,
        chunk_size: int | None = None,
        columns: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        for objective in objectives:
            check_objective(objective, total_steps)
        self.labels = labels_of(list(objectives))
        self.needs = reduce(or_, map(needs_of, objectives), Needs())
        self._schedules = {label: objective.weight for label, objective in zip(self.labels, objectives, strict=True)}
        self._terms: dict[str, Term] = {
            label: make_term(objective, label, total_steps)
            for label, objective in zip(self.labels, objectives, strict=True)
        }
        self._stateful = _of_kind(StatefulTerm, self._terms)
        self._chunk_size = chunk_size
        for term in _of_kind(CalibratedTerm, self._terms).values():
            term.calibrate(columns or {})

    @property
    def needs_targets(self) -> bool:
        return self.needs.targets

    @property
    def needs_states(self) -> bool:
        return self.needs.states

    @property
    def needs_columns(self) -> tuple[str, ...]:
        return self.needs.columns

    def begin(self, embedding: Tensor) -> None:
        """Show the input embedding that the stage begins with, before any checkpoint of the stage is loaded."""
        for term in _of_kind(AnchoredTerm, self._terms).values():
            term.begin(embedding)

    def weights(self, step: int) -> dict[str, float]:
        """Of each term after ``step`` optimiser steps."""
        return {label: value_at(schedule, step) for label, schedule in self._schedules.items()}

    def row_weight_sums(self, rows: Rows, row: Tensor) -> dict[str, float]:
        """A micro-batch's part of ``GlobalBatch.sums``. ``row`` (N,) says which row each of its predictions is of."""
        rows = with_lengths(rows, row)
        sums = {}
        for label, term in _of_kind(WeightedTerm, self._terms).items():
            weights = term.row_weights(rows)
            sums[label] = float(len(row)) if weights is None else float(weights.double()[row].sum())
        return sums

    def loss(self, forward: Forward, batch: GlobalBatch, only: str | None = None) -> Loss:
        """The loss of one micro-batch. ``only`` names the one term that shall count, to see its share of the gradient;
        statistics are not gathered then."""
        forward = replace(forward, rows=with_lengths(forward.rows, forward.row))
        weights = self.weights(forward.step)
        chosen = {label: term for label, term in self._terms.items() if only in (None, label)}
        parts = _Parts(chosen, weights, forward, batch)
        totals = [*parts.whole_values(), *parts.over_predictions(self._chunk_size, is_counted=only is None)]
        total = torch.stack(totals).sum() if totals else forward.hidden.sum() * 0.0
        return Loss(total, {label: float(parts.values[label]) for label in chosen}, weights)

    def statistics(self) -> dict[str, float]:
        """Sums since they were last asked for, to be added up over processes. The names are always the same."""
        return {
            f"{label}/{name}": value
            for label, term in self._stateful.items()
            for name, value in term.statistics().items()
        }

    def after_step(self, step: int, sums: Mapping[str, float]) -> dict[str, float]:
        """After optimiser step number ``step``, with the ``statistics`` of all processes: let terms learn. What to
        log."""
        return {
            f"{label}/{name}": value
            for label, term in self._stateful.items()
            for name, value in term.after_step(step, _own(sums, label)).items()
        }

    def summary(self, sums: Mapping[str, float]) -> dict[str, float]:
        """What the ``statistics`` of an evaluation say; nothing is learned from them."""
        return {
            f"{label}/{name}": value
            for label, term in self._stateful.items()
            for name, value in term.summary(_own(sums, label)).items()
        }

    def state_dict(self) -> dict[str, Any]:
        return {label: term.state_dict() for label, term in self._stateful.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for label, term in self._stateful.items():
            if label not in state:
                raise ConfigError(f"the checkpoint has no state of the term {label}: it is of another recipe")
            term.load_state_dict(state[label])


_JOINT = "joint"


@dataclass(frozen=True, slots=True)
class _Joint:
    """The weighted sum of the terms that join log-probabilities across predictions, and its slope in each of these, by
    which the one pass over the chunks gives it its gradient: ``slopes`` (N,), at most 1, times ``scale``, which is
    apart because it is too little for float16."""

    value: Tensor
    slopes: Tensor
    scale: float


class _Parts:
    """The terms of one micro-batch, by the way in which each is computed. ``values`` fills as they are.

    Terms of weight 0 are only looked at. Nothing goes backward through them: it would cost a pass, and a gradient of
    zeros lets an optimiser decay weights that no other term reaches.
    """

    def __init__(
        self, terms: Mapping[str, Term], weights: Mapping[str, float], forward: Forward, batch: GlobalBatch
    ) -> None:
        self._terms, self._weights, self._forward, self._batch = terms, weights, forward, batch
        self.values: dict[str, Tensor] = {}

    def whole_values(self) -> list[Tensor]:
        """The weighted terms that look at the whole micro-batch."""
        terms = _of_kind(ValueTerm, self._terms)
        return self._weighted({label: term.value(self._forward, self._batch) for label, term in terms.items()})

    def over_predictions(self, chunk_size: int | None, *, is_counted: bool) -> list[Tensor]:
        """The weighted sum of all terms that read logits, if there are any."""
        forward, terms, joint = self._forward, _of_kind(PredictionTerm, self._terms), self._joint(chunk_size)
        if not terms and joint is None:
            return []
        inverses = {label: 1.0 / max(term.normalizer(self._batch), 1e-12) for label, term in terms.items()}
        coefficients = {label: self._weights[label] * inverse for label, inverse in inverses.items()}
        if joint is not None:
            coefficients[_JOINT] = inverses[_JOINT] = joint.scale
        is_trained = any(coefficients.values())
        values = self._by_chunk(terms, joint, is_counted)
        with torch.set_grad_enabled(torch.is_grad_enabled() and is_trained):
            total, sums = weighted_sums(
                forward.hidden, forward.head, forward.bias, values, list(coefficients.values()), chunk_size
            )
        scaled = (sums.double() * sums.new_tensor(list(inverses.values()), dtype=torch.float64)).tolist()
        found = {label: sums.new_tensor(value) for label, value in zip(inverses, scaled, strict=True)}
        if joint is not None:
            total = total + (joint.value - found.pop(_JOINT))
        self.values |= found
        return [total] if is_trained else []

    def _by_chunk(self, terms: Mapping[str, PredictionTerm], joint: _Joint | None, is_counted: bool) -> ChunkValues:
        """From the logits of a chunk: each term's value at its predictions, and last what stands for ``joint``."""
        forward = self._forward

        def values(logits: Tensor, part: slice) -> list[Tensor]:
            targets = None
            if forward.targets is not None:
                with torch.no_grad():
                    targets = forward.targets.chunk(part)
            row, labels = forward.row[part], forward.labels[part]
            chunk = Predictions(logits, labels, row, forward.rows, targets, is_counted)
            by_term = [term.per_prediction(chunk) for term in terms.values()]
            return by_term if joint is None else [*by_term, chunk.label_log_probs() * joint.slopes[part]]

        return values

    def _joint(self, chunk_size: int | None) -> _Joint | None:
        """Of the terms that read the labels' log-probabilities; None where none of them has a weight."""
        forward, terms = self._forward, _of_kind(LogProbTerm, self._terms)
        if not terms:
            return None
        log_probs = label_log_probs(forward.hidden, forward.head, forward.bias, forward.labels, chunk_size)
        with torch.enable_grad():
            log_probs.requires_grad_()
            values = {label: term.from_log_probs(log_probs, forward, self._batch) for label, term in terms.items()}
            weighted = self._weighted(values)
            if not weighted:
                return None
            total = torch.stack(weighted).sum()
            slopes = torch.autograd.grad(total, log_probs)[0]
        scale = float(slopes.abs().max()) if slopes.any() else 1.0
        return _Joint(total.detach(), slopes / scale, scale)

    def _weighted(self, values: Mapping[str, Tensor]) -> list[Tensor]:
        self.values |= {label: value.detach() for label, value in values.items()}
        return [value * self._weights[label] for label, value in values.items() if self._weights[label]]


def _of_kind(kind: type[Kind], terms: Mapping[str, Term]) -> dict[str, Kind]:
    return {label: term for label, term in terms.items() if isinstance(term, kind)}


def _own(sums: Mapping[str, float], label: str) -> dict[str, float]:
    return {name.removeprefix(f"{label}/"): value for name, value in sums.items() if name.startswith(f"{label}/")}
