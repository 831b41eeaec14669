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
from .chunked import label_log_probs, weighted_sums
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
        self._chunk_size = chunk_size
        for term in self._of(CalibratedTerm):
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

    def _of(self, kind: type[Kind]) -> list[Kind]:
        return [term for term in self._terms.values() if isinstance(term, kind)]

    def begin(self, embedding: Tensor) -> None:
        """Show the input embedding that the stage begins with, before any checkpoint of the stage is loaded."""
        for term in self._of(AnchoredTerm):
            term.begin(embedding)

    def weights(self, step: int) -> dict[str, float]:
        """Of each term after ``step`` optimiser steps."""
        return {label: value_at(schedule, step) for label, schedule in self._schedules.items()}

    def row_weight_sums(self, rows: Rows, row: Tensor) -> dict[str, float]:
        """A micro-batch's part of ``GlobalBatch.sums``. ``row`` (N,) says which row each of its predictions is of."""
        rows = with_lengths(rows, row)
        sums = {}
        for term in self._of(WeightedTerm):
            weights = term.row_weights(rows)
            sums[term.label] = float(len(row)) if weights is None else float(weights.double()[row].sum())
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
            f"{term.label}/{name}": value
            for term in self._of(StatefulTerm)
            for name, value in term.statistics().items()
        }

    def after_step(self, step: int, sums: Mapping[str, float]) -> dict[str, float]:
        """After optimiser step number ``step``, with the ``statistics`` of all processes: let terms learn. What to
        log."""
        return {
            f"{term.label}/{name}": value
            for term in self._of(StatefulTerm)
            for name, value in term.after_step(step, _own(sums, term.label)).items()
        }

    def summary(self, sums: Mapping[str, float]) -> dict[str, float]:
        """What the ``statistics`` of an evaluation say; nothing is learned from them."""
        return {
            f"{term.label}/{name}": value
            for term in self._of(StatefulTerm)
            for name, value in term.summary(_own(sums, term.label)).items()
        }

    def state_dict(self) -> dict[str, Any]:
        return {term.label: term.state_dict() for term in self._of(StatefulTerm)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for term in self._of(StatefulTerm):
            if term.label not in state:
                raise ConfigError(f"the checkpoint has no state of the term {term.label}: it is of another recipe")
            term.load_state_dict(state[term.label])


class _Parts:
    """The terms of one micro-batch, by the way in which each is computed. ``values`` fills as they are."""

    def __init__(
        self, terms: Mapping[str, Term], weights: Mapping[str, float], forward: Forward, batch: GlobalBatch
    ) -> None:
        self._terms, self._weights, self._forward, self._batch = terms, weights, forward, batch
        self.values: dict[str, Tensor] = {}

    def whole_values(self) -> list[Tensor]:
        """The weighted terms that look at the whole micro-batch."""
        totals = []
        for label, term in self._terms.items():
            if isinstance(term, ValueTerm):
                value = term.value(self._forward, self._batch)
                self.values[label] = value.detach()
                totals.append(value * self._weights[label])
        return totals

    def over_predictions(self, chunk_size: int | None, *, is_counted: bool) -> list[Tensor]:
        """The weighted sum of all terms that read logits, if there are any."""
        forward = self._forward
        terms = {label: term for label, term in self._terms.items() if isinstance(term, PredictionTerm)}
        slopes, joint = self._slopes(chunk_size)
        if not terms and slopes is None:
            return []

        def values(logits: Tensor, part: slice) -> list[Tensor]:
            targets = None
            if forward.targets is not None:
                with torch.no_grad():
                    targets = forward.targets.chunk(part)
            row, labels = forward.row[part], forward.labels[part]
            chunk = Predictions(logits, labels, row, forward.rows, targets, is_counted)
            by_term = [term.per_prediction(chunk) for term in terms.values()]
            return by_term if slopes is None else [*by_term, chunk.label_log_probs() * slopes[part]]

        inverses = [1.0 / max(term.normalizer(self._batch), 1e-12) for term in terms.values()]
        coefficients = [self._weights[label] * inverse for label, inverse in zip(terms, inverses, strict=True)]
        total, sums = weighted_sums(
            forward.hidden,
            forward.head,
            forward.bias,
            values,
            coefficients if slopes is None else [*coefficients, 1.0],
            chunk_size,
        )
        scaled = (sums[: len(terms)].double() * sums.new_tensor(inverses, dtype=torch.float64)).tolist()
        self.values |= {label: sums.new_tensor(value) for label, value in zip(terms, scaled, strict=True)}
        return [total] if slopes is None else [total + (joint - sums[-1])]

    def _slopes(self, chunk_size: int | None) -> tuple[Tensor | None, Tensor]:
        """Of the terms that join log-probabilities across predictions: their weighted sum, and its slope in each
        log-probability, by which the one pass over the chunks gives it its gradient."""
        forward = self._forward
        terms = {label: term for label, term in self._terms.items() if isinstance(term, LogProbTerm)}
        if not terms:
            return None, forward.hidden.new_zeros(())
        log_probs = label_log_probs(forward.hidden, forward.head, forward.bias, forward.labels, chunk_size)
        with torch.enable_grad():
            log_probs.requires_grad_()
            values = {label: term.from_log_probs(log_probs, forward, self._batch) for label, term in terms.items()}
            joint = torch.stack([value * self._weights[label] for label, value in values.items()]).sum()
            slopes = torch.autograd.grad(joint, log_probs)[0]
        self.values |= {label: value.detach() for label, value in values.items()}
        return slopes, joint.detach()


def _own(sums: Mapping[str, float], label: str) -> dict[str, float]:
    return {name.removeprefix(f"{label}/"): value for name, value in sums.items() if name.startswith(f"{label}/")}
