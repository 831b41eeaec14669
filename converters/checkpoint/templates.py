"""The chat templates of a checkpoint, found where the runtime finds them."""

from pathlib import Path
from typing import Any

from ...runtime.chat.files import DEFAULT, FOLDER, KEY, find_templates
from ...runtime.errors import ConversionError

__all__ = ["DEFAULT", "FOLDER", "KEY", "read_templates"]


def read_templates(folder: Path, tokenizer_config: dict[str, Any]) -> dict[str, str]:
    """The templates by name, the one without a name as "default". ConversionError for one that is no text."""
    return find_templates(folder, tokenizer_config, ConversionError).templates
