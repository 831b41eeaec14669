"""Where artifacts go and what they are called."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..runtime.errors import ConversionError
from .gguf.types import LADDER
from .options import ConvertOptions
from .targets import Target

_TYPE_SUFFIX = re.compile(rf"[-._](?:{'|'.join(member.name for member in LADDER)})$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Output:
    """One artifact and its final name."""

    target: Target
    path: Path


def plan_outputs(name: str, folder: Path, options: ConvertOptions) -> list[Output]:
    """The path of each target of a model called ``name``; ``folder`` is where they lie unless the user says otherwise.

    ConversionError when two would have one name, or when something is there already and may not be replaced.
    """
    name = base_name(name)
    out = options.out
    if out is not None and len(options.targets) == 1 and _is_artifact(out, options):
        outputs = [Output(options.targets[0], out)]
    else:
        _refuse_file(out)
        outputs = [Output(target, (out or folder) / _file_name(name, target)) for target in options.targets]
    for output in outputs:
        _refuse_existing(output.path, options)
    return outputs


def base_name(name: str) -> str:
    """A model's name without the type of its weights: ``SmolLM2-135M.Q4_1`` and ``SmolLM2-135M`` are one model."""
    return _TYPE_SUFFIX.sub("", name)


def _is_artifact(out: Path, options: ConvertOptions) -> bool:
    if options.publish:
        return False
    if options.targets[0].format == "hf":
        return not out.is_dir() or options.force
    return out.suffix.lower() == ".gguf" and not out.is_dir()


def _file_name(name: str, target: Target) -> str:
    return name if target.format == "hf" else f"{name}-{target.type}.gguf"


def _refuse_file(out: Path | None) -> None:
    if out is not None and (out.is_file() or out.suffix.lower() == ".gguf"):
        raise ConversionError(f"--out {out} is one file, and several artifacts are to be made: give a folder")


def _refuse_existing(path: Path, options: ConvertOptions) -> None:
    if not path.exists() and not path.is_symlink():
        return
    if not options.force:
        raise ConversionError(f"{path} is there already: give --force to replace it, or another place with --out")
    if path.is_dir() and not (path / "config.json").is_file():
        raise ConversionError(f"{path} is a folder that holds no checkpoint: it is not replaced, choose another --out")


def sidecar_name(artifacts: Sequence[Path], text_name: str, *, is_published: bool) -> str:
    """A published folder has the names that other programs look for; elsewhere they begin with the artifact's."""
    return text_name if is_published else f"{artifacts[0].stem}.{text_name}"
