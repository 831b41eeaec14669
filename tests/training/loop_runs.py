"""A tiny recipe on data made up on the spot, how runs of it compare, and processes that run ``tapster train``."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tapster.training.loop.run import Result, train
from tapster.training.recipe.resolved import to_toml
from tapster.training.recipe.schema import Recipe
from tapster.training.report.display import Silent

SCRATCH = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "attention_dropout": 0.1,
}
STILL = SCRATCH | {"attention_dropout": 0.0}
STAGE: dict[str, Any] = {
    "name": "sft",
    "steps": 8,
    "batch_size": 8,
    "micro_batch_size": 4,
    "sequence_length": 64,
    "logging_steps": 1,
    "save_steps": 3,
    "optimizer": {"lr": 3e-3},
    "learning_rate": {"warmup_steps": 2},
    "objective": [{"term": "mixce", "weight": [[0, 0.5], [8, 1.0]]}, {"term": "cross_entropy", "weight": 0.2}],
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


def recipe(data: Path, *stages: Mapping[str, Any], teacher: Mapping[str, Any] | None = None, **student: Any) -> Recipe:
    """Stages with ``STAGE``'s values where they have none of their own."""
    whole = [{**STAGE, "data": {"train": [str(data)], "eval_rows": 4}, **stage} for stage in stages or ({},)]
    base = {"scratch": SCRATCH, "tokenizer": "train:280", "chat_template": "chatml", "compute": "float32"}
    base = {key: value for key, value in (base | student).items() if value is not None}
    return Recipe.model_validate({"name": "tiny", "title": "t", "student": base, "teacher": teacher, "stages": whole})


def run(recipe: Recipe, out: Path, **options: Any) -> Result:
    return train(recipe, out, resolve_model=Path, **options)


class Ear(Silent):
    """Hears what a run says."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def say(self, line: str) -> None:
        self.heard.append(line)


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


# Processes that run `tapster train`


class Children:
    """Processes of one ``tapster train``, forked from one that has imported everything already.

    ``said`` is what they wrote on standard error, all together. They are killed when the test is over.
    """

    def __init__(
        self, folder: Path, recipe: Recipe, out: Path, *options: str, processes: int = 1, **hooks: Any
    ) -> None:
        spelled = folder / "recipe.toml"
        spelled.write_text(to_toml(recipe), encoding="utf-8")
        self._logs = [folder / f"said-{rank}.txt" for rank in range(processes)]
        arguments = ["train", str(spelled), "--out", str(out), *options]
        together = _together(processes)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self.processes = [
            context.Process(target=child, args=(arguments, together | {"RANK": str(rank)}, str(log), hooks))
            for rank, log in enumerate(self._logs)
        ]
        for process in self.processes:
            process.start()

    @property
    def said(self) -> str:
        return "\n".join(log.read_text(encoding="utf-8") for log in self._logs if log.is_file())

    def wait(self, timeout_s: float = 120) -> list[int | None]:
        """Their exit codes."""
        end = time.monotonic() + timeout_s
        for process in self.processes:
            process.join(max(0.0, end - time.monotonic()))
        codes = [process.exitcode for process in self.processes]
        self.kill()
        assert None not in codes, f"still running after {timeout_s} s: {self.said}"
        return codes

    def kill(self) -> None:
        for process in self.processes:
            if process.is_alive():
                process.kill()
            process.join()


PRELOADED = [
    "tapster.server.cli",
    "tapster.server.commands.train",
    "tapster.training.loop.one_stage",
    "tapster.training.report.card",
    "tapster.training.report.estimate",
    "accelerate",
    "datasets",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "peft",
    "torch.utils.tensorboard",
    "transformers.models.llama.modeling_llama",
]


def _together(processes: int) -> dict[str, str]:
    if processes == 1:
        return {}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
    }


def child(arguments: list[str], environment: dict[str, str], log: str, hooks: dict[str, Any]) -> None:
    """What a process does: the command itself."""
    import torch

    file = Path(log).open("w", encoding="utf-8", buffering=1)  # noqa: SIM115  until the process ends
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    sys.stdout = sys.stderr = file
    os.environ.update(environment)
    if "RANK" in environment and environment.get("WORLD_SIZE"):
        os.environ["LOCAL_RANK"] = environment["RANK"]
    torch.set_num_threads(1)
    for name, value in hooks.items():
        globals()[name](value)
    from tapster.server.cli import main

    sys.exit(main(arguments))


def kill_in_checkpoint(step: int) -> None:
    """Die when all files of that checkpoint are written but the one that says so, and one of them is cut short."""
    from tapster.training.loop import checkpoints, trainer

    finish = checkpoints.finish_checkpoint

    def half(checkpoint: Path) -> None:
        if checkpoint.name == f"checkpoint-{step}":
            weights = checkpoint / "trained.safetensors"
            weights.write_bytes(weights.read_bytes()[:1000])
            os.kill(os.getpid(), signal.SIGKILL)
        finish(checkpoint)

    setattr(trainer, "finish_checkpoint", half)  # noqa: B010  a patch, which pyright would refuse


def spread_weights(_: bool) -> None:
    """FSDP 2 as ``accelerate launch --use_fsdp`` asks for it, which accelerate itself does on GPUs only."""
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    os.environ |= {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
    }
    begin = PartialState.__init__

    def begin_as_if(self: Any, *args: Any, **options: Any) -> None:
        begin(self, *args, **options)
        if PartialState._shared_state.get("distributed_type") == DistributedType.MULTI_CPU:
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU

    PartialState.__init__ = begin_as_if


def wait_for_step(out: Path, stage: str, step: int, timeout_s: float = 120) -> None:
    """Until the run has logged that step."""
    wait_until(lambda: any((r["stage"], r["step"]) == (stage, step) for r in logged(out)), timeout_s)


def logged(out: Path) -> list[dict[str, Any]]:
    """What a run that may be writing has logged so far."""
    with contextlib.suppress(FileNotFoundError):
        lines = (out / "metrics.jsonl").read_bytes().split(b"\n")[:-1]
        return [record for record in map(json.loads, lines) if record["kind"] == "train"]
    return []


def wait_until(is_so: Callable[[], bool], timeout_s: float) -> None:
    end = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < end, f"not within {timeout_s} s"
        time.sleep(0.005)


@contextlib.contextmanager
def children(*args: Any, **options: Any) -> Iterator[Children]:
    started = Children(*args, **options)
    try:
        yield started
    finally:
        started.kill()
