"""The training core against what its users would take instead: losses, steps of fine-tuning, a teacher's cache."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from ...runtime.errors import ConversionError, TapsterError
from ...runtime.models import find_model
from .conversion import Row, tapster_command
from .engines import EngineReport
from .training_kernels import measure_kernels
from .training_sft import measure_sft
from .training_teacher import measure_teacher

Say = Callable[[str], None]


def measure_training(model: str, report: EngineReport, *, repeat: int, say: Say) -> None:
    """Fill the report, as far as it comes; what fails is a note, and the rest goes on.

    ``model`` is a checkpoint, or a GGUF file to make one from.
    """

    def sft() -> list[Row]:
        with tempfile.TemporaryDirectory(prefix="tapster-bench-") as folder:
            rows, notes = measure_sft(_checkpoint(model, Path(folder), say), repeat=repeat, say=say)
            report.notes.extend(notes)
            return rows

    benches: dict[str, Callable[[], list[Row]]] = {
        "SFT": sft,
        "losses": lambda: measure_kernels(repeat=repeat, say=say),
        "teacher": lambda: measure_teacher(model, repeat=repeat, say=say),
    }
    for name, bench in benches.items():
        try:
            report.rows.extend(bench())
        except TapsterError as error:
            report.notes.append(f"{name}: not measured: {error}")


def _checkpoint(model: str, place: Path, say: Say) -> Path:
    """The folder of the model, made if it has to be."""
    profile = find_model(model)
    if profile.format == "hf":
        return profile.path
    if profile.format != "gguf":
        raise ConversionError(f"{model} is neither a checkpoint nor a GGUF file to make one from")
    say("making a checkpoint")
    out = place / "checkpoint"
    tapster_command(place, "convert", str(profile.path), "--to", "hf", "--out", str(out), "--no-verify")
    return out
