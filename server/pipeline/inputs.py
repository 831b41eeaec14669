"""What a step depends on, by name, and how to say what of it is other than before.

Inputs are a flat table: key paths of a recipe with their values, and names of models and data with their digests.
"""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...training.loop.state import UNIMPORTANT
from ...training.recipe.merge import labels_of
from ...training.recipe.resolved import to_toml
from ...training.recipe.schema import Recipe, Stage
from .contents import MARK

Inputs = dict[str, str | int | float | bool | None]
_LABELS = {"stages": "name", "objective": "term"}
_MOST = 3


def flat(value: Any, path: str) -> Inputs:
    """A table of a recipe as key paths, as ``--set`` writes them."""
    if isinstance(value, Mapping):
        return {name: one for key, inner in value.items() for name, one in flat(inner, _join(path, str(key))).items()}
    label = _LABELS.get(path.rpartition(".")[2])
    if isinstance(value, list) and label is not None:
        names = labels_of(value, label)
        return {
            key: one
            for name, table in zip(names, value, strict=True)
            for key, one in flat(table, _join(path, name)).items()
        }
    return {path: value if isinstance(value, str | int | float | None) else json.dumps(value)}


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What has changed, an entry each. Of many values only the first are told. A file that is gone has not changed: it
    is missed when it is needed."""
    names = [
        name for name in {**before, **now} if before.get(name) != now.get(name) and not _is_gone(name, before, now)
    ]
    said = [_difference(name, before.get(name), now.get(name)) for name in names[:_MOST]]
    return said + ([f"{len(names) - _MOST} more differences"] if len(names) > _MOST else [])


def _difference(name: str, before: Any, now: Any) -> str:
    if _is_digest(before) or _is_digest(now):
        return f"{name} is new" if before is None else f"{name} has changed"
    return f"{name} is {_shown(now)}, was {_shown(before)}"


def _is_gone(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    return name not in now and _is_digest(before[name])


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(MARK)


def _shown(value: Any) -> str:
    text = "not set" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}..."


def changed_settings(out: Path, recipe: Recipe, stage: Stage) -> list[str]:
    """What of the student, the teacher and a stage is other than in the recipe with which the run was begun."""
    try:
        before = tomllib.loads((out / "recipe.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    tables = [flat(values, "") for values in (before, tomllib.loads(to_toml(recipe)))]
    old, new = ({key: one for key, one in table.items() if _is_setting(key, stage)} for table in tables)
    return differences(old, new)


def _is_setting(key: str, stage: Stage) -> bool:
    table, _, rest = key.partition(".")
    if table != "stages":
        return table == "student" or (table == "teacher" and rest not in ("concurrency", "endpoint"))
    name, _, rest = rest.partition(".")
    return name == stage.name and rest.partition(".")[0] not in UNIMPORTANT
