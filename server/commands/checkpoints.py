"""The Hugging Face folder of a model that training begins with, whatever the user calls it."""

import hashlib
import json
import os
from pathlib import Path

from ...runtime.resolve import require_hub_name, resolve_model


def checkpoint_folder(spec: str, *, quiet: bool = False) -> Path:
    """The folder of the checkpoint that ``spec`` names: a folder, a name on the Hub, a GGUF file, or ``demo``.

    GGUF files are converted once, into the user's cache. ModelError, ConversionError.
    """
    path = Path(spec).expanduser() if spec.startswith("~") else Path(spec)
    if (path / "config.json").is_file():
        return path
    if spec == "demo" or path.exists() or Path(spec.rpartition(":")[0] or path).is_dir():
        return _converted(resolve_model(spec, formats=("gguf",)), quiet=quiet)
    require_hub_name(spec)
    if ":" in spec:  # a quantization
        return _converted(resolve_model(spec, formats=("gguf",)), quiet=quiet)
    from ...runtime.hub import fetch_checkpoint

    return fetch_checkpoint(spec, progress=not quiet)


def _converted(model: Path, *, quiet: bool) -> Path:
    """The checkpoint of a GGUF file. Several processes of one run wait for the first of them."""
    from filelock import FileLock

    folder = _cache() / f"{model.stem}-{_fingerprint(model)}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "config.json").is_file():
            _convert(model, folder, quiet=quiet)
    return folder


def _convert(model: Path, folder: Path, *, quiet: bool) -> None:
    from ...converters.convert import convert
    from ...converters.options import ConvertOptions
    from ...converters.targets import parse_targets
    from ...runtime.gguf_facts import GGUFFacts
    from ..terminal.progress import TerminalProgress

    options = ConvertOptions(targets=parse_targets(["hf"]), out=folder, force=True)
    with TerminalProgress(quiet=quiet) as progress:
        convert(str(model), options, progress=progress)
    if isinstance(licence := GGUFFacts(model).metadata.get("general.license"), str):
        card = f"---\nlicense: {json.dumps(licence)}\n---\n"  # as a model card says it
        (folder / "README.md").write_text(card, encoding="utf-8")


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "tapster" / "checkpoints"


def _fingerprint(model: Path) -> str:
    """Changes with the file, without reading it."""
    facts = model.stat()
    return hashlib.sha256(f"{model.resolve()}|{facts.st_size}|{facts.st_mtime_ns}".encode()).hexdigest()[:12]
