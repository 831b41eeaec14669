"""Where artifacts go and what they are called."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..runtime.errors import ConversionError
from .gguf.types import LADDER
from .options import ConvertOptions
from .targets import Target

PUBLISHED_NAMES = ("README.md", "Modelfile", "params", "template", "preset.ini", "model.yaml")
SIDECAR_NAMES = ("Modelfile", "params", "preset.ini", "model.yaml")
_TYPE_SUFFIX = re.compile(rf"[-._](?:{'|'.join(member.name for member in LADDER)})$", re.IGNORECASE)
_CHECKPOINT_FILE = re.compile(
    r"model.*\.safetensors|model\.safetensors\.index\.json|(generation_)?config\.json|tokenizer.*|"
    r"special_tokens_map\.json|added_tokens\.json|vocab\.json|merges\.txt|chat_template\.jinja|"
    r"additional_chat_templates|model\.onnx(\.data)?|genai_config\.json|arcee\.py"
)


@dataclass(frozen=True, slots=True)
class Output:
    """One artifact and its final name."""

    target: Target
    path: Path

    @property
    def proof(self) -> Path | None:
        """Where its proof lies."""
        if self.target.format == "hf":
            return None
        name = self.path.stem if self.target.format == "gguf" else self.path.name
        return self.path.with_name(f"{name}.proof.json")


def plan_outputs(name: str, folder: Path, options: ConvertOptions) -> list[Output]:
    """The path of each target of a model called ``name``; ``folder`` is where they lie unless the user says otherwise.

    ConversionError when two would have one name, or when something is there already and may not be replaced.
    """
    name = base_name(name)
    out = options.out
    if out is not None and len(options.targets) == 1 and _is_artifact(out, options):
        outputs = [Output(options.targets[0], out)]
    else:
        _refuse_file(out, options)
        outputs = [Output(target, (out or folder) / _file_name(name, target, options)) for target in options.targets]
    for index, output in enumerate(outputs):
        if any(output.path == earlier.path for earlier in outputs[:index]):
            raise ConversionError(f"two targets would be called {output.path}: make them one after the other")
        _refuse_existing(output, options)
    return outputs


def refuse_own_source(source: Path, outputs: Sequence[Output]) -> None:
    """ConversionError when an artifact would take the place of what it is made from, or of the folder that holds it."""
    for output in outputs:
        if source.resolve().is_relative_to(output.path.resolve()):
            raise ConversionError(f"{output.path} is or holds the source itself: choose another place with --out")


def base_name(name: str) -> str:
    """A model's name without the type of its weights: ``SmolLM2-135M.Q4_1`` and ``SmolLM2-135M`` are one model."""
    return _TYPE_SUFFIX.sub("", name)


def _is_artifact(out: Path, options: ConvertOptions) -> bool:
    """Whether ``out`` is the artifact's own name; else it is the folder that it goes into."""
    if options.publish:
        return False
    if options.targets[0].format != "gguf":
        if out.suffix.lower() == ".gguf" and not out.is_dir():
            raise ConversionError(f"--out {out} names a GGUF file, and {options.targets[0]} is a folder")
        return not out.is_dir() or (out / "config.json").is_file()
    return out.suffix.lower() == ".gguf" and not out.is_dir()


def _file_name(name: str, target: Target, options: ConvertOptions) -> str:
    if target.format == "hf":
        return name
    if target.format == "gguf":
        return f"{name}-{target.type}.gguf"
    groups = f"-g{options.group_size}" if options.group_size else ""
    return f"{name}-{target.format}-{target.type}{groups}"


def _refuse_file(out: Path | None, options: ConvertOptions) -> None:
    if out is None or out.is_dir():
        return
    if out.suffix.lower() == ".gguf":
        raise ConversionError(f"--out {out} is one file, and several artifacts are to be made: give a folder")
    if out.exists():
        raise ConversionError(f"--out {out} is a file and no folder; a file to be made ends in .gguf")
    if str(out) == "-":
        raise ConversionError("--out -: artifacts cannot go to standard output, give a file or a folder")


def _refuse_existing(output: Output, options: ConvertOptions) -> None:
    for path in (output.path, output.proof):
        if path is None or not (path.exists() or path.is_symlink()):
            continue
        if not options.force:
            raise ConversionError(f"{path} is there already: give --force to replace it, or another place with --out")
        if path.is_dir():
            _refuse_foreign(path)
        elif path == output.path and output.target.format != "gguf":
            raise ConversionError(f"{path} is not replaced, because it is a file and no folder: choose another --out")


def _refuse_foreign(folder: Path) -> None:
    """Only what is a checkpoint and nothing else may be replaced as a whole."""
    for entry in sorted(folder.iterdir()):
        if not _CHECKPOINT_FILE.fullmatch(entry.name):
            raise ConversionError(
                f"{folder} is not replaced, because {entry.name} in it is no part of a checkpoint: choose another --out"
            )


def refuse_existing_files(paths: Iterable[Path], options: ConvertOptions) -> None:
    """The same for what goes beside the artifacts."""
    for path in paths:
        if path.exists() and not options.force:
            raise ConversionError(f"{path} is there already: give --force to replace it, or another place with --out")


def sidecar_paths(outputs: Sequence[Output], options: ConvertOptions) -> list[Path]:
    """The files for other programs that may come to lie beside the artifacts.

    A published folder has the names that those programs look for, and grows: what lies beside a proof of ours is ours.
    Elsewhere they begin with the artifact's name.
    """
    ggufs = [output.path for output in outputs if output.target.format == "gguf"]
    if options.publish:
        folder = ggufs[0].parent
        is_ours = any(folder.glob("*.proof.json"))
        return [] if is_ours else [folder / name for name in PUBLISHED_NAMES]
    if not options.sidecars:
        return []
    return [path.with_name(f"{path.stem}.{name}") for path in ggufs for name in SIDECAR_NAMES]
