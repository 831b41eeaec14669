"""Read the JSON files that lie beside a model, with one clear error for what is none."""

import json
from pathlib import Path
from typing import Any

from .errors import ModelError, TapsterError


def read_json(path: Path, error: type[TapsterError] = ModelError) -> dict[str, Any]:
    """The object in ``path``. ``error`` is raised when it cannot be read or is no JSON object."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as cause:
        raise error(f"cannot read {path}: {cause.strerror}") from cause
    except (ValueError, RecursionError) as cause:
        raise error(f"{path} is no JSON ({cause}): download it again") from cause
    if not isinstance(value, dict):
        raise error(f"{path} should hold a JSON object and holds a {type(value).__name__}: download it again")
    return value


def read_optional_json(path: Path, error: type[TapsterError] = ModelError) -> dict[str, Any]:
    """The same, and an empty object where there is no such file."""
    return read_json(path, error) if path.is_file() else {}
