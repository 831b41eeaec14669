"""Read the JSON files of a checkpoint, with one clear error for what is none."""

from pathlib import Path
from typing import Any

from ...runtime import json_file
from ...runtime.errors import ConversionError


def read_json(path: Path) -> dict[str, Any]:
    """The object in ``path``. ConversionError when it cannot be read or is no JSON object."""
    return json_file.read_json(path, ConversionError)


def read_optional_json(path: Path) -> dict[str, Any]:
    """The same, and an empty object where there is no such file."""
    return json_file.read_optional_json(path, ConversionError)
