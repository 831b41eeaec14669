"""A GGUF file as a Hugging Face folder: weights, config, tokenizer, chat templates, how it stops and samples."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...runtime.errors import ConversionError
from ...runtime.gguf_facts import GGUFFacts
from ..gguf.reader import GGUFTensors
from ..tokenizer.rebuild import rebuild_tokenizer
from ..workspace import deliver, require_space, workspace
from .config import model_config, special_ids
from .safetensors import total_bytes, write_shards
from .tensors import OutTensor, out_tensors

_SAMPLING = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repeat_penalty": "repetition_penalty",
}


def gguf_to_huggingface(
    source: Path, folder: Path, *, dtype: str = "BF16", advance: Callable[[int], None] = lambda _: None
) -> None:
    """Write ``folder``, which must not be there, whole or not at all. Quantized weights are written as what they are
    now, in ``dtype`` (BF16, F16 or F32); ``advance`` hears how many bytes of ``source`` have been read.
    """
    if folder.exists():
        raise ConversionError(f"{folder} is there already: choose another name with --out")
    tensors, texts = _read(source, dtype)
    with workspace(folder.parent) as place:
        require_space(place, total_bytes(tensors, dtype), f"{folder.name} in {dtype}")
        made = place / "model"
        _write_texts(made, texts)
        try:
            write_shards(made, tensors, dtype, advance)
        except OSError as error:
            raise ConversionError(f"cannot write {folder}: {os.strerror(error.errno or 0)}") from error
        deliver(made, folder, replace=False)


def _read(source: Path, dtype: str) -> tuple[list[OutTensor], dict[str, str]]:
    """The tensors, and every other file by name. Metadata that make no sense are one ConversionError."""
    model = GGUFTensors(source)
    try:
        return out_tensors(model), _texts(source, model, dtype)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConversionError(
            f"{source} has metadata that do not fit together ({reason}): download it again"
        ) from error


def _texts(source: Path, model: GGUFTensors, dtype: str) -> dict[str, str]:
    facts = GGUFFacts(source)
    tokenizer = rebuild_tokenizer(model.metadata)
    files = {
        "config.json": _json(model_config(model, dtype)),
        "generation_config.json": _json(_generation_config(facts, model)),
        "tokenizer.json": json.dumps(tokenizer.tokenizer, ensure_ascii=False),
        "tokenizer_config.json": _json(tokenizer.config),
    }
    for name, template in facts.chat_templates().items():
        path = "chat_template.jinja" if name == "default" else f"additional_chat_templates/{_safe(name)}.jinja"
        files[path] = template
    return files


def _generation_config(facts: GGUFFacts, model: GGUFTensors) -> dict[str, Any]:
    ids = special_ids(model)
    ends = [facts.token_id("eog_ids", name) for name in ("eos", "eot", "eom")]
    config: dict[str, Any] = {
        **ids,
        "eos_token_id": list(dict.fromkeys(end for end in ends if end is not None)) or None,
    }
    if stops := facts.stop_strings():
        config["stop_strings"] = list(stops)
    sampling = {_SAMPLING[name]: value for name, value in facts.sampling().items() if name in _SAMPLING}
    if sampling.get("temperature") == 0:
        return config  # greedy, which is the default and allows no other sampling value
    return config | ({"do_sample": True, **sampling} if sampling else {})


def _safe(name: str) -> str:
    """A template's name becomes a file's: it comes out of the file and must not lead anywhere else."""
    if not name or name.startswith(".") or any(char in name for char in "/\\:\0"):
        raise ConversionError(f"the chat template {name!r} cannot be the name of a file")
    return name


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _write_texts(folder: Path, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8", newline="\n")
