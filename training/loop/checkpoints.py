"""Checkpoints of a stage: what is in them, which one is whole, and which ones may go.

A checkpoint counts once its ``complete.json`` is there, which is written last, when everything else is on the disk. A
process that is killed while it saves leaves a folder that nobody reads, and the one before it stays until then.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ...runtime.errors import TapsterError, TrainingError

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS = "trained.safetensors"
OBJECTIVES = "objectives.pt"
COMPLETE = "complete.json"
_NAME = re.compile(r"checkpoint-(\d+)")


def last_checkpoint(stage: Path) -> Path | None:
    """The latest whole checkpoint of a stage's folder."""
    whole = [folder for folder in _checkpoints(stage) if (folder / COMPLETE).is_file()]
    return max(whole, key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    match = _NAME.fullmatch(checkpoint.name)
    assert match, checkpoint
    return int(match[1])


def finish_checkpoint(checkpoint: Path) -> None:
    """Everything is written: let it last, say so, and remove all others."""
    for path in sorted(checkpoint.rglob("*")):
        if path.is_file():
            _sync(path)
    marker = checkpoint / COMPLETE
    marker.write_text(json.dumps({"step": step_of(checkpoint)}) + "\n", encoding="utf-8")
    _sync(marker)
    for other in _checkpoints(checkpoint.parent):
        if other != checkpoint:
            remove_checkpoint(other)


def remove_checkpoint(checkpoint: Path) -> None:
    """The marker goes first, so that half a checkpoint never counts."""
    (checkpoint / COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(checkpoint, ignore_errors=True)


def save_trained(module: nn.Module, checkpoint: Path, state: dict[str, Tensor] | None = None) -> None:
    """The weights that are trained, and buffers, as they are in memory: a frozen weight is where it was before."""
    from safetensors.torch import save_file

    state = module.state_dict() if state is None else state
    names = _changing(module)
    tensors = {name: tensor.detach().contiguous() for name, tensor in state.items() if name in names}
    checkpoint.mkdir(parents=True, exist_ok=True)
    save_file(tensors, checkpoint / WEIGHTS)


@contextmanager
def or_damaged(checkpoint: Path) -> Iterator[None]:
    """Raises TrainingError where a file of a checkpoint cannot be read. Each library has errors of its own for that."""
    import torch

    from .together import or_a_clear_end

    try:
        with or_a_clear_end():
            yield
    except (TapsterError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise TrainingError(
            f"{checkpoint} cannot be read ({reason}): if it is damaged, remove it, and the stage begins anew"
        ) from error


def load_trained(module: nn.Module, checkpoint: Path) -> None:
    """Raises TrainingError unless the checkpoint can be read and has just the weights that are trained."""
    from safetensors.torch import load_file

    with or_damaged(checkpoint):
        state = load_file(checkpoint / WEIGHTS)
    if odd := sorted(set(state) ^ _changing(module)):
        raise TrainingError(
            f"{checkpoint} is of another model or another choice of trained weights (such as {odd[0]}); "
            "--force begins the run anew"
        )
    module.load_state_dict(state, strict=False)


def _changing(module: nn.Module) -> set[str]:
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    kept = module.state_dict().keys() if any(True for _ in module.buffers()) else ()
    names = trained | {name for name, _ in module.named_buffers() if name in kept}
    return {name.replace("_fsdp_wrapped_module.", "") for name in names}


def _checkpoints(stage: Path) -> list[Path]:
    return [path for path in stage.glob("checkpoint-*") if _NAME.fullmatch(path.name)] if stage.is_dir() else []


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
