"""Which model it is: a hash of the files that a model computes with, and what they say of it."""

import hashlib
import re
from pathlib import Path

from ...runtime.errors import ModelError
from ...runtime.gguf_files import existing_parts
from ...runtime.gguf_header import read_header
from ...runtime.json_file import read_optional_json

_WEIGHTS = (".safetensors", ".bin", ".pt", ".onnx", ".data", ".gguf")
_BESIDE = re.compile(r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|vocab)\.json|.*\.jinja|"
                     r"merges\.txt|tokenizer\.model|.*\.index\.json")  # fmt: skip
_HUB_BLOB = re.compile(r"[0-9a-f]{64}")


def fingerprint(model: Path) -> str:
    """Of a GGUF file with all its parts, or of a folder's weights, configs and tokenizer. It reads them whole, for a
    model is trained on in place; files in the Hub's cache are named by their hash already. ModelError."""
    files = _files(model)
    if not files:
        raise ModelError(f"{model} has no files of a model")
    whole = hashlib.sha256()
    for path in files:
        name = path.name if model.is_dir() else path.suffix
        whole.update(f"{name}\0{_sha256(path)}\n".encode())
    return whole.hexdigest()[:32]


def is_here(spec: str) -> bool:
    """Whether a model can be looked at without a network."""
    return spec == "demo" or Path(spec).expanduser().exists()


def vocabulary_size(model: Path) -> int | None:
    """Of how many tokens a model has probabilities; None where its files do not say it in the usual place."""
    if model.is_dir():
        config = read_optional_json(model / "config.json")
        size = {**config, **(config.get("text_config") or {})}.get("vocab_size")
    else:
        size = len(read_header(model).metadata.get("tokenizer.ggml.tokens") or ())
    return size if isinstance(size, int) and size > 0 else None


def _files(model: Path) -> list[Path]:
    if not model.is_dir():
        return existing_parts(model)
    return [path for path in sorted(model.iterdir()) if path.is_file() and _counts(path.name)]


def _counts(name: str) -> bool:
    return not name.startswith(".") and (name.endswith(_WEIGHTS) or bool(_BESIDE.fullmatch(name)))


def _sha256(path: Path) -> str:
    if _HUB_BLOB.fullmatch(path.resolve().name):
        return path.resolve().name
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error
