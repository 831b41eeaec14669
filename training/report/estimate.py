"""What a recipe will cost: tokens, floating-point operations, memory and hours, before it starts.

A token costs 6 operations for each parameter that is multiplied with it: 2 forward, 4 backward (Kaplan et al. 2020,
arXiv 2001.08361); weights that are not trained need no gradient of their own and save up to 2. Recomputed activations
and a teacher's pass cost 2 more each. Attention's own products are left out: below some thousand tokens they are small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...runtime.errors import ConfigError
from ..recipe.needs import fills_cache, needs_of_stage
from ..recipe.schema import Recipe, Stage
from .display import duration
from .rate import matmul_flop_s
from .sizes import Sizes, model_sizes, student_sizes

EFFICIENCY = 0.5
"""The share of a large matrix product's speed that training usually reaches."""
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class StageCost:
    """``tokens`` and what follows from them are None where the number of rows is not known."""

    name: str
    steps: int | None
    tokens: int | None
    trained_parameters: int
    flop: float | None
    memory_bytes: int
    hours: float | None
    with_plain: bool = False
    """Whether plain fine-tuning beside it is counted, too."""

    def line(self) -> str:
        memory = f"{self.memory_bytes / 1e9:,.1f} GB"
        trained = f"{_count(self.trained_parameters)} parameters trained"
        if self.tokens is None or self.flop is None or self.hours is None or self.steps is None:
            return f"{self.name}: as long as its data; {trained}, about {memory}"
        length = f"{self.steps:,} steps, at most {_count(self.tokens)} tokens, {self.flop:.1e} FLOP"
        beside = ", with plain fine-tuning beside it" if self.with_plain else ""
        return f"{self.name}: {length}, {trained}, about {memory}, {duration(3600 * self.hours)}{beside}"


@dataclass(frozen=True, slots=True)
class Estimate:
    name: str
    parameters: int
    teacher_parameters: int | None
    flop_s: float
    """Of a matrix product on this machine, all processes together."""
    stages: tuple[StageCost, ...]
    is_asking: bool = False
    """Whether a teacher is asked beforehand, which is not counted: how fast it answers is not known."""

    @property
    def hours(self) -> float | None:
        """Of the stages whose length is known; None where none is."""
        known = [stage.hours for stage in self.stages if stage.hours is not None]
        return sum(known) if known else None

    def lines(self) -> list[str]:
        """For a reader."""
        teacher = f", a teacher of {_count(self.teacher_parameters)}" if self.teacher_parameters else ""
        without = [] if all(stage.hours is not None for stage in self.stages) else ["stages of unknown length"]
        without += ["the teacher's answering"] if self.is_asking else []
        known = f"without {' and '.join(without)}" if without else "in all"
        total = "" if self.hours is None else f": {duration(3600 * self.hours)} {known} if every row is full"
        speed = f"at half of this machine's {self.flop_s / 1e9:,.0f} GFLOP/s{total}"
        head = f"{self.name}: {_count(self.parameters)} parameters{teacher}; {speed}"
        return [head, *(f"  {stage.line()}" for stage in self.stages)]

    def to_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {**asdict(self), "hours": self.hours}


def estimate(
    recipe: Recipe,
    *,
    resolve_model: Callable[[str], Path],
    rows: Mapping[str, int] | None = None,
    processes: int = 1,
    flop_s: float | None = None,
) -> Estimate:
    """The cost of all stages. ``rows`` are those of stages; a stage of so many epochs has no length without. Every row
    counts as full. ``flop_s`` is measured if not given. ConfigError for a stage in which nothing would be trained."""
    student = student_sizes(recipe.student, resolve_model)
    teacher = _teacher_sizes(recipe, student, resolve_model)
    rate = flop_s or matmul_flop_s(recipe.student.compute) * processes
    costs = [
        _stage_cost(stage, recipe, student, teacher, rate, (rows or {}).get(stage.name)) for stage in recipe.stages
    ]
    in_memory = teacher.parameters if teacher else None
    return Estimate(recipe.name, student.parameters, in_memory, rate, tuple(costs), fills_cache(recipe))


def _teacher_sizes(recipe: Recipe, student: Sizes, resolve_model: Callable[[str], Path]) -> Sizes | None:
    """Of a teacher in memory; one behind an endpoint, or stored, costs nothing here."""
    teacher = recipe.teacher
    if teacher is None or teacher.kind != "online" or teacher.model is None:
        return None
    return student if teacher.model == "student" else model_sizes(teacher.model, resolve_model)


def _stage_cost(
    stage: Stage,
    recipe: Recipe,
    student: Sizes,
    teacher: Sizes | None,
    rate: float,
    rows: int | None,
) -> StageCost:
    steps = steps_of(stage, rows)
    trained = student.trained(stage)
    if not trained:
        keys = "lora.targets finds" if stage.lora else "frozen and trained leave"
        raise ConfigError(f"stages.{stage.name}: {keys} nothing to be trained")
    if stage.rounds is not None or steps is None:
        steps = tokens = flop = hours = None
    else:
        tokens = steps * stage.batch_size * stage.sequence_length
        needed = teacher if teacher is not None and _reads_teacher(stage) else None
        flop = tokens * flop_per_token(stage, student, trained, needed) * (2 if stage.baseline else 1)
        hours = flop / (rate * EFFICIENCY) / 3600
    memory = memory_bytes(stage, recipe, student, trained, teacher)
    return StageCost(stage.name, steps, tokens, trained, flop, memory, hours, stage.baseline is not None)


def steps_of(stage: Stage, rows: int | None) -> int | None:
    """Optimiser steps; None where they depend on rows that are not known. A last batch that is not full counts."""
    if stage.steps is not None or stage.epochs is None or rows is None:
        return stage.steps
    return max(1, round(stage.epochs * -(-rows // stage.batch_size)))


def flop_per_token(stage: Stage, student: Sizes, trained: int, teacher: Sizes | None) -> float:
    """Forward and the gradient of activations for every weight, the gradient of weights for those that are trained."""
    share = min(1.0, trained / student.parameters)
    passes = 4 + 2 * share + (2 if stage.gradient_checkpointing else 0)
    return passes * student.computing + (2 * teacher.computing if teacher else 0)


def _reads_teacher(stage: Stage) -> bool:
    needs = needs_of_stage(stage)
    return needs.targets or needs.states or needs.spans


def memory_bytes(stage: Stage, recipe: Recipe, student: Sizes, trained: int, teacher: Sizes | None) -> int:
    """Of one process: weights, gradients, the optimiser's state, a micro-batch's activations, and a teacher.

    Activations of a layer are about 34 bytes for each token and hidden unit in 16 bits, without attention's table; two
    where they are recomputed (Korthikanti et al. 2022, arXiv 2205.05198).
    """
    kept = recipe.student
    held = _BYTES[kept.dtype] if kept.masters == "as-saved" else 4
    state = 8 * trained if stage.optimizer.name == "adamw" else 0
    weights = student.parameters * held + trained * held + state
    if held == 4 and kept.compute != "float32":
        weights += 2 * student.parameters  # autocast's copies
    tokens = stage.micro_batch_size * stage.sequence_length
    width = _BYTES[kept.compute] / 2
    in_layer = 2 * student.layers + 34 if stage.gradient_checkpointing else 34 * student.layers
    activations = tokens * student.hidden * in_layer * width
    beside = teacher.parameters * _BYTES[recipe.teacher.dtype] if teacher and recipe.teacher else 0
    return round(weights + activations + beside)


def _count(number: int) -> str:
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)
