"""One stage: a model in memory and rows in, the same model trained out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from transformers import TrainingArguments

from ...runtime.errors import ConfigError
from ..data.order import order
from ..objectives.assembly import Assembly
from ..objectives.registry import needs_of
from ..objectives.schedules import check_together, least
from ..optim.freezing import choose_trained
from ..optim.masters import keep_in, masters_dtype
from ..optim.neftune import EmbeddingNoise
from ..recipe.schema import LearningRate, Objective, Stage, Student
from .checkpoints import last_checkpoint, step_of
from .collate import Collator
from .module import StudentModule
from .order import group_size, micro_batch_size, plan_rows, sort_within_steps, total_steps
from .signals import stopping
from .together import weights_are_spread
from .trainer import DistillTrainer, Work

if TYPE_CHECKING:
    from datasets import Dataset

    from ..report.metrics import Metrics
    from ..teacher.base import Teacher

Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """How a stage went. ``before`` and ``after`` are the values on the held-out rows; empty where there are none, or
    where the beginning was in an earlier process."""

    is_finished: bool
    steps: int
    before: dict[str, float]
    after: dict[str, float]
    plain: dict[str, float] = field(default_factory=dict)
    """``after`` of plain fine-tuning, where the stage has a ``baseline``."""
    rounds: list[dict[str, int]] = field(default_factory=list)
    """What came of each round, of a stage of rounds: see ``rounds.run.Round``."""


def train_rows(
    model: Any,
    stage: Stage,
    student: Student,
    train: Dataset,
    *,
    folder: Path,
    held_out: Dataset | None = None,
    teacher: Teacher | None = None,
    metrics: Metrics | None = None,
    name: str | None = None,
    pad_id: int = 0,
    say: Say = lambda line: None,
) -> Outcome:
    """Train ``model`` in place, from the last checkpoint in ``folder`` if there is one."""
    num_steps = total_steps(len(train), stage.batch_size, stage.steps, stage.epochs)
    check_together([objective.weight for objective in stage.objective], num_steps)
    _prepare_weights(model, stage, student, say)
    objectives = _with_cross_entropy(stage.objective)
    assembly = Assembly(objectives, total_steps=num_steps, columns=_columns(objectives, train))
    assembly.begin(model.get_input_embeddings().weight)
    module = StudentModule(model, assembly, _noise(model, stage))
    args = arguments(stage, student, num_steps, folder)
    if stage.gradient_share_steps and weights_are_spread():
        say(f"warning: {stage.name}: gradient_share_steps has no effect where weights are spread over processes")
    size = micro_batch_size(stage.batch_size, stage.micro_batch_size, args.world_size, _group_size(train))
    args.per_device_train_batch_size = size
    args.gradient_accumulation_steps = stage.batch_size // (size * args.world_size)
    work = Work(
        stage=stage,
        train=train,
        plan=_plan(stage, train, num_steps),
        micro_batch_size=size,
        collator=Collator(pad_id),
        held_out=held_out,
        teacher=teacher,
        metrics=metrics,
        undecayed=_anchored(module, stage),
    )
    return _run(DistillTrainer(module, args, work), folder, name or stage.name)


def _run(trainer: DistillTrainer, folder: Path, name: str) -> Outcome:
    checkpoint = last_checkpoint(folder)
    done = step_of(checkpoint) if checkpoint else 0
    trainer.args.eval_on_start = checkpoint is None and trainer.work.held_out is not None
    metrics = trainer.work.metrics
    if metrics is not None:
        metrics.begin(name, trainer.args.max_steps, done)

    def stop() -> None:
        trainer.is_stopping = True

    if checkpoint:
        trainer.load(checkpoint)
    try:
        with stopping(stop):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    finally:
        if metrics is not None:
            metrics.close()
    evaluations = [line for line in trainer.state.log_history if line.get("kind") == "eval"]
    at_end = [line for line in evaluations if line["step"] == trainer.args.max_steps]
    return Outcome(
        is_finished=trainer.state.global_step >= trainer.args.max_steps,
        steps=trainer.state.global_step,
        before=next((line for line in evaluations if line["step"] == 0), {}),
        after=at_end[-1] if at_end else {},
    )


def arguments(stage: Stage, student: Student, num_steps: int, folder: Path) -> TrainingArguments:
    """The stage in the Trainer's words. What is saved, evaluated and said when is decided by our own callback."""
    on_cpu = not torch.accelerator.is_available()
    if on_cpu and student.compute == "float16":
        raise ConfigError('student.compute = "float16" needs a GPU; use bfloat16 or float32')
    args = TrainingArguments(
        output_dir=str(folder),
        max_steps=num_steps,
        learning_rate=stage.optimizer.lr,
        lr_scheduler_type="constant_with_warmup"
        if stage.learning_rate.shape == "constant"
        else stage.learning_rate.shape,
        warmup_steps=warmup_steps(stage.learning_rate, num_steps),
        max_grad_norm=stage.max_grad_norm,
        seed=stage.seed,
        bf16=student.compute == "bfloat16",
        fp16=student.compute == "float16",
        use_cpu=on_cpu,
        logging_steps=stage.logging_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        ddp_find_unused_parameters=not _reaches_every_weight(stage.objective),
    )
    args._n_gpu = min(args.n_gpu, 1)  # with more the Trainer takes nn.DataParallel, which would tear batches apart
    return args


def warmup_steps(rate: LearningRate, num_steps: int) -> int:
    return rate.warmup_steps if rate.warmup_steps is not None else math.ceil((rate.warmup_ratio or 0.0) * num_steps)


def _columns(objectives: list[Objective], rows: Dataset) -> dict[str, list[float]]:
    """The columns that terms look at before they begin."""
    wanted = {name for objective in objectives for name in needs_of(objective).columns}
    return {name: list(rows[name]) for name in wanted if name in rows.column_names}


def _prepare_weights(model: Any, stage: Stage, student: Student, say: Say) -> None:
    num_trained, total = choose_trained(model, stage.frozen, stage.trained)
    dtype, warning = masters_dtype(model, student, stage.optimizer.lr)
    keep_in(model, dtype, student.compute)
    if stage.gradient_checkpointing:
        enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
        enable({"use_reentrant": False})
    say(f"{stage.name}: {num_trained:,} of {total:,} weights are trained, kept in {dtype}")
    if warning:
        say(f"warning: {warning}")


def _noise(model: Any, stage: Stage) -> EmbeddingNoise | None:
    if stage.neftune is None:
        return None
    noise = EmbeddingNoise(stage.neftune, stage.sequence_length)
    noise.attach(model.get_input_embeddings())
    return noise


def _plan(stage: Stage, train: Dataset, num_steps: int) -> np.ndarray:
    curriculum, group = stage.data.curriculum, _group_size(train)
    keys = train[curriculum.by] if curriculum.by is not None else None

    def of_epoch(epoch: int) -> np.ndarray:
        return order(
            len(train),
            curriculum,
            epoch=epoch,
            seed=stage.seed,
            keys=None if keys is None else np.asarray(keys),
            batch_size=stage.batch_size,
            total_steps=num_steps,
            group_size=group,
        )

    plan = plan_rows(num_steps, stage.batch_size, of_epoch)
    return plan if group > 1 else sort_within_steps(plan, np.asarray([len(ids) for ids in train["input_ids"]]))


def _group_size(train: Dataset) -> int:
    return group_size(train["group"]) if "group" in train.column_names else 1


def _with_cross_entropy(objectives: list[Objective]) -> list[Objective]:
    """The held-out cross-entropy is what runs are compared by, so it is measured whatever they train on."""
    if any(objective.term == "cross_entropy" for objective in objectives):
        return objectives
    return [*objectives, Objective(term="cross_entropy", weight=0.0)]


def _anchored(module: nn.Module, stage: Stage) -> frozenset[str]:
    """Names of embeddings that an anchor holds."""
    if not any(objective.term == "tea" for objective in stage.objective):
        return frozenset()
    weight = module.model.get_input_embeddings().weight  # type: ignore[union-attr, operator]  any causal model has it
    return frozenset(name for name, parameter in module.named_parameters() if parameter is weight)


def _reaches_every_weight(objectives: list[Objective]) -> bool:
    """In each step. Terms of hidden states alone leave the last norm and the output matrix without a gradient, an
    anchor all but the embedding, and a term whose weight is 0 everything."""
    return any(
        not objective.term.startswith(("hidden_", "tea")) and least(objective.weight) > 0.0 for objective in objectives
    )
