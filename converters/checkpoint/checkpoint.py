"""A Hugging Face checkpoint folder: what its files say, read when it is asked for, and its tensors, not read yet."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ...runtime.errors import ConversionError
from ...runtime.model_folder import folder_name
from .json_file import read_json, read_optional_json
from .safetensors import CheckpointTensor
from .shards import read_shards
from .templates import read_templates

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """One model as its author saved it. Dictionaries are empty where their file is not there."""

    path: Path
    config: dict[str, Any]
    generation_config: dict[str, Any]
    tokenizer_config: dict[str, Any]
    special_tokens_map: dict[str, Any]
    chat_templates: dict[str, str]
    tensors: Mapping[str, CheckpointTensor]

    @cached_property
    def name(self) -> str:
        """The folder's name; of one in the Hub's cache the repository's, without its owner."""
        return folder_name(self.path)

    @cached_property
    def tokenizer_json(self) -> dict[str, Any] | None:
        """``tokenizer.json``, read on first use: with a large vocabulary that takes a quarter of a second."""
        path = self.path / "tokenizer.json"
        return read_json(path) if path.is_file() else None

    @cached_property
    def tokenizer_model(self) -> Path | None:
        """The SentencePiece model, if there is one."""
        path = self.path / "tokenizer.model"
        return path if path.is_file() else None

    @cached_property
    def card(self) -> dict[str, Any]:
        """The model card's front matter: license, language, base_model, tags."""
        path = self.path / "README.md"
        return _front_matter(path) if path.is_file() else {}


def open_checkpoint(path: Path) -> Checkpoint:
    """Open the checkpoint in the folder ``path``. ConversionError says in one line what is wrong with it."""
    if not path.is_dir():
        raise ConversionError(f"{path} is no folder: give the folder of a Hugging Face checkpoint")
    if not (path / "config.json").is_file():
        raise ConversionError(f"{path} is no Hugging Face checkpoint: it has no config.json")
    config = read_json(path / "config.json")
    _require_unquantized(path, config)
    tokenizer_config = read_optional_json(path / "tokenizer_config.json")
    return Checkpoint(
        path=path,
        config=config,
        generation_config=read_optional_json(path / "generation_config.json"),
        tokenizer_config=tokenizer_config,
        special_tokens_map=read_optional_json(path / "special_tokens_map.json"),
        chat_templates=read_templates(path, tokenizer_config),
        tensors=read_shards(path),
    )


def _require_unquantized(path: Path, config: dict[str, Any]) -> None:
    """Quantized weights come with scales in tensors of their own; reading them as numbers would be silently wrong."""
    found = config.get("quantization_config") or config.get("compression_config")
    if found:
        method = found
        if isinstance(found, dict):  # mlx-lm writes no method
            method = found.get("quant_method") or f"{found.get('bits', 'unknown')} bits"
        raise ConversionError(
            f"{path} is already quantized (quantization_config in config.json: {method}): convert the original "
            f"checkpoint, or one dequantized to bfloat16"
        )


def _front_matter(path: Path) -> dict[str, Any]:
    """The YAML between two lines of ``---`` at the start. A card that cannot be read is as good as none."""
    import yaml

    try:
        before, opening, rest = path.read_text("utf-8-sig", "replace").partition("---\n")
        text, closing, _ = rest.partition("\n---")
        found = yaml.safe_load(text) if opening and closing and not before.strip() else None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        logger.warning("the front matter of %s cannot be read and is left out (%s)", path, type(error).__name__)
        return {}
    return found if isinstance(found, dict) else {}
