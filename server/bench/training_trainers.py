"""Our trainer and TRL's, each on the very same micro-batches, a step at a time.

``python -m tapster.server.bench.training_trainers NAME CHECKPOINT ROWS TURNS`` is a contestant of ``training_turns``.
ROWS is a JSON file with ``input_ids`` and ``labels``, a list of rows each, read in this order. A turn is everything
from the end of one optimiser step to the end of the next: the collating, the losses, the logging.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...runtime.errors import ConfigError, TapsterError
from .training_turns import Pace

BATCH, MICRO_BATCH = 4, 2
LEARNING_RATE, LOGGING_STEPS = 1e-5, 10


def tapster(checkpoint: Path, rows: dict[str, list], out: Path, pace: Pace) -> None:
    """A stage with one cross-entropy, as ``tapster train`` runs it."""
    from datasets import Dataset

    from ...training.loop.stage import train_rows
    from ...training.recipe.schema import Curriculum, Data, Objective, Optimizer, Stage, Student
    from ...training.report.metrics import Metrics
    from ...training.student.open import read_student

    class Paced(Metrics):
        def begin(self, stage: str, total_steps: int, done: int = 0) -> None:
            super().begin(stage, total_steps, done)
            pace.begin()

        def step(self, step: int) -> None:
            super().step(step)
            pace.step_done()

    student = Student(model=str(checkpoint), dtype="float32", compute="float32")
    stage = Stage(
        name="sft",
        steps=_steps(rows),
        batch_size=BATCH,
        micro_batch_size=MICRO_BATCH,
        logging_steps=LOGGING_STEPS,
        data=Data(train=["rows"], curriculum=Curriculum(order="as-is")),
        optimizer=Optimizer(lr=LEARNING_RATE, weight_decay=0.0),
        objective=[Objective(term="cross_entropy")],
    )
    opened = read_student(checkpoint, student)
    train = Dataset.from_dict({**rows, "index": list(range(len(rows["labels"])))})
    train_rows(opened.model, stage, student, train, folder=out, metrics=Paced(out, tensorboard=False))


def trl(checkpoint: Path, rows: dict[str, list], out: Path, pace: Pace) -> None:
    """``SFTTrainer`` with its default loss, which is a chunked one, and its default optimiser, a fused AdamW; without
    its defaults bfloat16 and gradient checkpointing, which would make it slower on a CPU."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    class Paced(TrainerCallback):
        def on_train_begin(self, *_args: Any, **_more: Any) -> None:
            pace.begin()

        def on_step_end(self, *_args: Any, **_more: Any) -> None:
            pace.step_done()

    args = SFTConfig(
        output_dir=str(out),
        max_steps=_steps(rows),
        per_device_train_batch_size=MICRO_BATCH,
        gradient_accumulation_steps=BATCH // MICRO_BATCH,
        learning_rate=LEARNING_RATE,
        logging_steps=LOGGING_STEPS,
        max_length=None,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=not torch.accelerator.is_available(),
        train_sampling_strategy="sequential",
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32),
        args=args,
        train_dataset=Dataset.from_dict(rows),
        processing_class=AutoTokenizer.from_pretrained(checkpoint),
        callbacks=[Paced()],
    )
    trainer.train()


TRAINERS: dict[str, Callable[[Path, dict[str, list], Path, Pace], None]] = {"tapster": tapster, "trl": trl}


def _steps(rows: dict[str, list]) -> int:
    return len(rows["labels"]) // BATCH


def main(name: str, checkpoint: Path, rows: Path, turns: int) -> None:
    """What the process does."""
    pace = Pace(turns)
    with tempfile.TemporaryDirectory(prefix="tapster-bench-") as folder:
        try:
            if name not in TRAINERS:
                raise ConfigError(f"there are {', '.join(TRAINERS)}")
            TRAINERS[name](checkpoint, json.loads(rows.read_text(encoding="utf-8")), Path(folder), pace)
        except (TapsterError, ImportError) as error:
            pace.answer({"error": f"{name}: {error}"})


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
