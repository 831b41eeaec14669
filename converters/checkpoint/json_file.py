"""Read the JSON files of a checkpoint, with one clear error for what is none."""

import json
from pathlib import Path
from typing import Any

from ...runtime.errors import ConversionError


def read_json(path: Path) -> dict[str, Any]:
    """The object in ``path``. ConversionError when it cannot be read or is no JSON object."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise ConversionError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConversionError(f"{path} is no JSON ({error}): download it again") from error
    if not isinstance(value, dict):
        raise ConversionError(f"{path} should hold a JSON object and holds a {type(value).__name__}: download it again")
    return value


def read_optional_json(path: Path) -> dict[str, Any]:
    """The same, and an empty object where there is no such file."""
    return read_json(path) if path.is_file() else {}
