"""Changes to a recipe before it is checked: its small form, other data, and single values.

A change is a table like the recipe's own. In it, ``stages`` may be a table by the stages' names, and ``objective`` one
by the terms' names; so ``stages.distil.objective.cwce.weight`` is the path of a value. Tables are merged, everything
else is replaced; an empty text takes a key, a stage or a term away. Where only one of several keys may be given, the
one in the change replaces the others.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from ...runtime.errors import ConfigError

Table = dict[str, Any]
_NAMES = {"stages": "name", "objective": "term"}
_ONE_OF = (("steps", "epochs"), ("warmup_steps", "warmup_ratio"), ("model", "scratch"))


def merged(base: Mapping[str, Any], change: Mapping[str, Any], path: str = "") -> Table:
    """``base`` with ``change``; neither is altered. ConfigError for a stage or a term that is not there."""
    result = dict(base)
    for one_of in _ONE_OF:
        if given := set(one_of) & set(change):
            for key in set(one_of) - given:
                result.pop(key, None)
    for key, value in change.items():
        here = f"{path}.{key}" if path else key
        if value == "":
            result.pop(key, None)
            continue
        result[key] = _merged_value(key, result.get(key), value, here)
    return result


def _merged_value(key: str, old: Any, new: Any, path: str) -> Any:
    if isinstance(new, Mapping) and isinstance(old, list) and key in _NAMES:
        return _merged_list(old, new, _NAMES[key], path)
    if isinstance(new, Mapping) and isinstance(old, Mapping):
        return merged(old, new, path)
    return new


def _merged_list(tables: Sequence[Any], changes: Mapping[str, Any], name_key: str, path: str) -> list[Any]:
    """The tables, each with the change under its name; a second table of a name is ``NAME-2``."""
    labels = labels_of(tables, name_key)
    for name, change in changes.items():
        if name not in labels:
            raise ConfigError(f"{path}.{name}: there is no such {_word(name_key)}; {near_name(name, labels)}")
        if change != "" and not isinstance(change, Mapping):
            raise ConfigError(
                f"{path}.{name}: is {change!r}, and this {_word(name_key)} is a table: set one of its keys, or nothing "
                f"at all to take it away"
            )
    return [
        merged(table, changes[label], f"{path}.{label}") if label in changes else table
        for label, table in zip(labels, tables, strict=True)
        if changes.get(label) != ""
    ]


def labels_of(tables: Sequence[Any], name_key: str) -> list[str]:
    """How tables of a list are called: by their name, and with a number from the second of a name on."""
    labels: list[str] = []
    counts: Counter[str] = Counter()
    for idx, table in enumerate(tables):
        name = str(table.get(name_key, idx)) if isinstance(table, Mapping) else str(idx)
        counts[name] += 1
        labels.append(name if counts[name] == 1 else f"{name}-{counts[name]}")
    return labels


def _word(name_key: str) -> str:
    return {"name": "stage", "term": "objective"}[name_key]


def near_name(name: str, names: Sequence[str]) -> str:
    """What to write instead of ``name``."""
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"


def from_path(path: str, value: Any) -> Table:
    """The change that sets one value: ``a.b`` and 1 are ``{"a": {"b": 1}}``."""
    keys = path.split(".")
    for key in reversed(keys):
        value = {key: value}
    return value


def other_data(stages: Sequence[str], sources: Sequence[tuple[str | None, str]]) -> Table:
    """The change that trains on ``sources``: of one stage, or of all where the stage is None.

    What the recipe says of its own data no longer holds: the format is found out again, and rows for evaluation are
    held out of these.
    """
    changes: dict[str, list[str]] = {}
    for stage, source in sources:
        for name in [stage] if stage else stages:
            changes.setdefault(name, []).append(source)
    return {
        "stages": {name: {"data": {"train": found, "eval": [], "format": "auto"}} for name, found in changes.items()}
    }
