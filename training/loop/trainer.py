"""transformers' Trainer with our batches: normalised over the whole step, in a planned order, exact after a kill."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import PrinterCallback, TrainerState

from ...runtime.errors import TrainingError
from ..disk import or_a_clear_end_of_files
from ..objectives.select import predictions_of
from ..optim.make import make_optimizer
from .checkpoints import OBJECTIVES, finish_checkpoint, load_trained, or_damaged, remove_checkpoint, save_trained
from .collate import without_labels
from .evaluate import global_batch, held_out
from .ledger import Ledger
from .order import PlannedBatches
from .shares import gradient_shares
from .together import sum_up, wait_for_all

if TYPE_CHECKING:
    from datasets import Dataset

    from ..recipe.schema import Stage
    from ..report.metrics import Metrics
    from ..teacher.base import Teacher
    from .collate import Collator
    from .module import StudentModule


_STOP = "stop"
_AGAIN = "run the same command again, which goes on at the checkpoint before"


@dataclass(frozen=True)
class Work:
    """What a stage trains on. ``plan`` (steps, batch_size) are the rows of each optimiser step; ``metrics`` is None on
    all processes but the first."""

    stage: Stage
    train: Dataset
    plan: np.ndarray
    micro_batch_size: int
    collator: Collator
    held_out: Dataset | None = None
    teacher: Teacher | None = None
    metrics: Metrics | None = None
    undecayed: frozenset[str] = frozenset()


class DistillTrainer(Trainer):
    """A whole stage is one epoch to the Trainer: ``plan`` already says what each step reads.

    So an accumulated step is never cut short, and a resumed run skips as many micro-batches as were done.
    """

    def __init__(self, module: StudentModule, args: TrainingArguments, work: Work) -> None:
        super().__init__(model=module, args=args, train_dataset=work.train, data_collator=work.collator)
        self.remove_callback(PrinterCallback)
        self.add_callback(_Steps(self))
        self.module = module
        self.work = work
        self.ledger = Ledger()
        self.is_stopping = False
        """Set from outside (a signal): all processes save after the step that is running, and end."""
        self._must_stop = False
        self._shares: dict[str, float] = {}

    # What a step reads

    def get_train_dataloader(self) -> DataLoader:
        batches = PlannedBatches(
            self.work.plan, self.work.micro_batch_size, self.args.process_index, self.args.world_size
        )
        return DataLoader(
            self.work.train,  # type: ignore[arg-type]  a Dataset of `datasets` reads as one of torch
            batch_sampler=batches,
            collate_fn=self.work.collator,
            pin_memory=self.args.device.type == "cuda",
        )

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """The micro-batches of a step, and what their terms are normalised by."""
        batches = [next(epoch_iterator) for _ in range(num_batches)]
        whole = global_batch(self.module.assembly, batches, device)
        if whole.predictions == 0:
            raise TrainingError(f"step {self.state.global_step}: no token of the whole batch has a label")
        return batches, whole

    # What is done with it

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor:
        """Times the number of processes, over which DDP and FSDP will take the mean."""
        step = self.state.global_step
        signals = self.signals(inputs)
        total, terms, weights = model(inputs, step=step, global_batch=num_items_in_batch, **signals)
        value = float(total.detach())
        if not math.isfinite(value):
            raise TrainingError(f"step {step}: the loss is {value}: {_blame(terms)}")
        self.ledger.add(value, terms, weights, int(inputs["attention_mask"].sum()))
        if self._measures_shares(step):
            autocast = self.accelerator.autocast
            self._shares = gradient_shares(self.module, inputs, step, num_items_in_batch, signals, autocast)
        return total * self.args.world_size

    def signals(self, batch: Mapping[str, Tensor]) -> dict[str, Any]:
        """What the teacher says of a batch."""
        teacher, assembly = self.work.teacher, self.module.assembly
        signals: dict[str, Any] = {}
        if teacher is not None and assembly.needs_targets:
            signals["targets"] = teacher.targets(batch, *predictions_of(batch))
        if teacher is not None and assembly.needs.spans:
            signals["spans"] = teacher.spans(batch, *predictions_of(batch))
        if teacher is not None and assembly.needs_states:
            signals["teacher_states"] = teacher.states(batch)
        return signals

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            chosen: Any = self.model if model is None else model
            self.optimizer = make_optimizer(chosen, self.work.stage.optimizer, self.work.undecayed)
        return self.optimizer

    def after_step(self) -> None:
        """Once an optimiser step is done, on every process."""
        assembly = self.module.assembly
        sums = sum_up({**assembly.statistics(), _STOP: float(self.is_stopping)}, self.args.device)
        self._must_stop = sums.pop(_STOP) > 0
        reported = assembly.after_step(self.state.global_step, sums)
        self.ledger.note({f"state/{name}": value for name, value in reported.items()})
        self.ledger.step_done()
        if self._shares:
            self.ledger.note({f"gradient_share/{name}": value for name, value in self._shares.items()})
            self._shares = {}
        if self.work.metrics is not None:
            self.work.metrics.step(self.state.global_step)

    def _measures_shares(self, step: int) -> bool:
        every = self.work.stage.gradient_share_steps
        return every is not None and step % every == 0 and not self._shares and not self.is_fsdp_enabled

    # What is told

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" not in logs:
            return  # the Trainer's own summary at the end
        values = self.ledger.close(self.args.device)
        values |= {name: logs[name] for name in ("learning_rate", "grad_norm") if name in logs}
        values["epoch"] = self.state.global_step * self.work.stage.batch_size / len(self.work.train)
        self._tell(values, "train")

    def evaluate(self, *_args: Any, **_kwargs: Any) -> dict[str, float]:
        """On the held-out rows, in micro-batches of the training size."""
        rows, size = self.work.held_out, self.work.micro_batch_size
        if rows is None or len(rows) == 0:
            return {}
        first, stride = self.args.process_index * size, size * self.args.world_size
        mine = range(first, len(rows), stride)

        def batch_from(at: int) -> dict[str, Tensor]:
            return self.work.collator([rows[i] for i in range(at, min(at + size, len(rows)))])

        batches = [batch_from(at) for at in mine]
        module, fillers = self.module, []
        if self.is_fsdp_enabled:  # which brings weights together layer by layer, so that all take part in every pass
            module = self.model_wrapped
            fillers = [without_labels(batch_from(0))] * (math.ceil(len(rows) / stride) - len(mine))
        step = self.state.global_step
        values = held_out(module, self.module.assembly, batches, self.signals, step, self.args.device, fillers)
        self._tell(values, "eval")
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, values)
        return values

    def _tell(self, values: dict[str, float], kind: Any) -> None:
        self.state.log_history.append({**values, "step": self.state.global_step, "kind": kind})
        if self.work.metrics is not None:
            self.work.metrics.log(self.state.global_step, values, kind)

    # What is kept

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        checkpoint = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        try:
            with or_a_clear_end_of_files(f"write {checkpoint}", _AGAIN):
                super()._save_checkpoint(model, trial)
                if self.args.should_save:
                    torch.save(self.module.assembly.state_dict(), checkpoint / OBJECTIVES)
                wait_for_all()
                if self.args.should_save:
                    finish_checkpoint(checkpoint)
        except TrainingError:
            remove_checkpoint(checkpoint)
            raise
        wait_for_all()

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Of a checkpoint; whole, also where each process has a part."""
        state: Any = self.accelerator.get_state_dict(self.model) if self.is_fsdp_enabled else None
        if self.args.should_save:
            save_trained(self.module, Path(str(output_dir)), state)

    def load(self, checkpoint: Path) -> None:
        """Weights and what terms have learnt, before anything is wrapped or spread over processes.

        The Trainer loads all else; its state not by a method that could be overridden, so that is tried here."""
        load_trained(self.module, checkpoint)
        with or_damaged(checkpoint):
            self.module.assembly.load_state_dict(torch.load(checkpoint / OBJECTIVES, weights_only=True))
            TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Nothing: ``load`` comes first."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with or_damaged(Path(str(checkpoint))):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_scaler(self, checkpoint: str | None) -> None:
        with or_damaged(Path(str(checkpoint))):
            super()._load_scaler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with or_damaged(Path(str(checkpoint))):
            super()._load_rng_state(checkpoint)


class _Steps(TrainerCallback):
    """What follows an optimiser step."""

    def __init__(self, trainer: DistillTrainer) -> None:
        self._trainer = trainer

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        trainer, stage, step = self._trainer, self._trainer.work.stage, state.global_step
        trainer.after_step()
        is_last = step >= state.max_steps
        control.should_log |= is_last or trainer._must_stop
        control.should_evaluate |= is_last or bool(stage.eval_steps and step % stage.eval_steps == 0)
        control.should_save |= is_last or trainer._must_stop or bool(stage.save_steps and step % stage.save_steps == 0)
        control.should_training_stop |= trainer._must_stop


def _blame(terms: Mapping[str, float]) -> str:
    odd = [name for name, value in terms.items() if not math.isfinite(float(value))]
    return f"{', '.join(odd) or 'the sum of its terms'} went wrong; a lower learning rate or a longer warm-up may help"
