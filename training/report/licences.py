"""What a result may be used for follows from what went into it; that is said, not decided."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

OF_SAMPLES = "apache-2.0"


def licence_of_model(folder: Path | None) -> str | None:
    """What the front matter of the model card in a folder says."""
    readme = folder / "README.md" if folder else None
    if readme is None or not readme.is_file():
        return None
    text = readme.read_text(encoding="utf-8", errors="replace")
    head = text.split("---\n", 2)
    if not text.startswith("---\n") or len(head) < 3:
        return None
    try:
        values = yaml.safe_load(head[1])
    except yaml.YAMLError:
        return None
    licence = values.get("license") if isinstance(values, dict) else None
    return licence if isinstance(licence, str) else None


def licence_of_source(source: Mapping[str, Any]) -> str:
    if is_sample(source):
        return f"part of tapster, {OF_SAMPLES}"
    return str(source.get("licence") or "not stated")


def is_sample(source: Mapping[str, Any]) -> bool:
    return str(source.get("source", "")).startswith("sample:")
