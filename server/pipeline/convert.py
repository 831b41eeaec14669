"""The third step: an artifact for each target, of which those that still hold are left alone."""

import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from ...runtime.model_folder import shown_path
from .contents import folder_digest, folder_files
from .inputs import Inputs, differences
from .proofs import fault
from .step import Job, Name, Verdict

if TYPE_CHECKING:
    from ...converters.artifact import Artifact
    from ...converters.options import ConvertOptions
    from ...converters.targets import Target

FOLDER = "artifacts"
_OF_THE_CARD = ("loss.png",)
_PROGRAMS = {"gguf": ("llama_cpp_python",), "mlx": ("mlx", "mlx-lm"), "onnx": ("onnx_ir", "onnxruntime")}
"""What computes the artifacts of a format, besides ourselves."""


@dataclass(frozen=True)
class Planned:
    """An artifact, and why it has to be made; nothing where it holds."""

    target: "Target"
    path: Path
    why: list[str]


class ConvertStep:
    name: Name = "convert"

    def __init__(self, job: Job) -> None:
        self._job = job

    def check(self) -> Verdict:
        plan = self.plan()
        if not plan:
            return Verdict("not needed", ["the recipe names no targets: convert = [...] in it, or --to"])
        todo = [one for one in plan if one.why]
        about = ", ".join(str(one.target) for one in todo or plan)
        holds = ", ".join(str(one.target) for one in plan if not one.why)
        why = list(dict.fromkeys(reason for one in todo for reason in one.why))
        return Verdict("will run" if todo else "up to date", why, about, holds)

    def run(self) -> None:
        """Raises ProofError where an artifact is not what the model is, after all of them were made."""
        from ...converters.convert import Conversion, convert
        from ..commands.interrupts import end_once
        from ..terminal.progress import TerminalProgress

        job, started, made = self._job, time.monotonic(), Conversion()
        todo = [one for one in self.plan() if one.why]
        (job.out / FOLDER).mkdir(parents=True, exist_ok=True)
        options = self._options(tuple(one.target for one in todo), job.out / FOLDER)
        end_once()
        try:
            with TerminalProgress(quiet=job.quiet) as progress:
                convert(
                    str(job.model), options, made, progress=progress, tell=lambda text: progress.say(f"note: {text}")
                )
        finally:
            for artifact in made.artifacts:
                if not artifact.failures:
                    self._note(artifact, (time.monotonic() - started) / len(made.artifacts))

    def plan(self) -> list[Planned]:
        """Every target, in order."""
        from ...converters.outputs import plan_outputs

        job = self._job
        if not job.targets:
            return []
        name = shown_path(job.out).name
        outputs = plan_outputs(name, job.out / FOLDER, self._options(job.targets, None))
        return [Planned(one.target, one.path, self._why(one.target, one.path)) for one in outputs]

    def _options(self, targets: "tuple[Target, ...]", out: Path | None) -> "ConvertOptions":
        from ...converters.options import AUTO, ConvertOptions

        imatrix = AUTO if "gguf:all" in self._job.recipe.convert else None
        return ConvertOptions(targets=targets, out=out, force=True, sidecars=False, imatrix=imatrix)

    def _why(self, target: "Target", path: Path) -> list[str]:
        entry = self._job.record.entry(_step(target))
        if self.name in self._job.again:
            return ["it was asked for"]
        if entry is None or not entry.done:
            return ["not made yet"]
        if gone := self._job.record.missing(_step(target)):
            return [f"{self._job.out / gone} is gone"]
        why = differences(entry.inputs, self._inputs(target))
        return why or ([wrong] if (wrong := fault(path)) else [])

    def _inputs(self, target: "Target") -> Inputs:
        inputs: Inputs = {"the model": folder_digest(self._job.model, but=_OF_THE_CARD)}
        for program in ("tapster", *_PROGRAMS[target.format]):
            inputs[program] = _version(program)
        return inputs

    def _note(self, artifact: "Artifact", seconds: float) -> None:
        from ...converters.proof.proof import proof_path

        path = artifact.path
        files = [path / name for name in folder_files(path)] if path.is_dir() else [path]
        outputs = [*files, proof_path(path)]
        self._job.record.finish(_step(artifact.target), self._inputs(artifact.target), outputs, seconds)


def _step(target: "Target") -> str:
    return f"convert {target}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
