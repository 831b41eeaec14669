"""A tiny recipe on data made up on the spot, and how runs of it compare."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tapster.training.loop.run import Result, train
from tapster.training.recipe.schema import Recipe

SCRATCH = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "attention_dropout": 0.1,
}
STAGE: dict[str, Any] = {
    "name": "sft",
    "steps": 10,
    "batch_size": 8,
    "micro_batch_size": 2,
    "sequence_length": 64,
    "logging_steps": 1,
    "save_steps": 3,
    "optimizer": {"lr": 3e-3},
    "learning_rate": {"warmup_steps": 2},
    "objective": [{"term": "mixce", "weight": [[0, 0.5], [10, 1.0]]}, {"term": "cross_entropy", "weight": 0.2}],
}


def questions(path: Path, count: int = 40) -> Path:
    """Additions as chat; rows of very different lengths."""
    chosen = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            left, right = chosen.randrange(50), chosen.randrange(50)
            answer = " ".join([f"{left} plus {right} is {left + right}."] * chosen.randrange(1, 4))
            messages = [
                {"role": "user", "content": f"What is {left} plus {right}?"},
                {"role": "assistant", "content": answer},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")
    return path


def recipe(data: Path, *stages: Mapping[str, Any], **student: Any) -> Recipe:
    """Stages with ``STAGE``'s values where they have none of their own."""
    whole = [{**STAGE, "data": {"train": [str(data)], "eval_rows": 4}, **stage} for stage in stages or ({},)]
    base = {"scratch": SCRATCH, "tokenizer": "train:280", "chat_template": "chatml", "compute": "float32"}
    return Recipe.model_validate({"name": "tiny", "title": "t", "student": base | student, "stages": whole})


def run(recipe: Recipe, out: Path, **options: Any) -> Result:
    return train(recipe, out, resolve_model=Path, **options)


def records(out: Path, kind: str = "train") -> list[dict[str, Any]]:
    lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def losses(out: Path, kind: str = "train") -> dict[tuple[str, int], dict[str, float]]:
    """By stage and step: everything that does not depend on the clock."""
    clocked = {"time", "tokens_per_s", "kind", "stage", "step"}
    return {
        (record["stage"], record["step"]): {key: value for key, value in record.items() if key not in clocked}
        for record in records(out, kind)
    }


if __name__ == "__main__":  # python loop_runs.py RECIPE.json OUT
    import torch

    torch.set_num_threads(1)
    run(Recipe.model_validate_json(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
