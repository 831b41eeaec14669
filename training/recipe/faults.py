"""What is wrong with a recipe, in one line: where, which value, what to do."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from .merge import labels_of

_SCHEDULE = "give a number, or points [[step, value], …]"


def explained(error: ValidationError, data: Mapping[str, Any], model: type[BaseModel]) -> tuple[str, str]:
    """(key path, what is wrong) of the first fault."""
    faults = error.errors()
    first = faults[0]
    keys, labels = _walk(first["loc"], data)
    if first["type"] == "extra_forbidden":
        return ".".join(labels), _unknown(keys, model)
    if first["type"] == "missing" and not isinstance(first["loc"][-1], str):  # an item of a pair
        return ".".join(labels), f"is {_shown(first['input'])}: it has too few values"
    if first["type"] == "missing":
        missing = [str(part) for part in first["loc"] if isinstance(part, str)][-1]
        return ".".join([*labels, missing]), "is missing"
    wanted = [fault["msg"] for fault in faults if _walk(fault["loc"], data)[0][: len(keys)] == keys]
    return ".".join(labels), f"is {_shown(first['input'])}: {_wanted(keys, wanted)}"


def _wanted(keys: Sequence[str | int], messages: Sequence[str]) -> str:
    if "weight" in keys:
        return _SCHEDULE
    parts = [message.replace("Input", "it") for message in dict.fromkeys(messages)]
    return ", or ".join(part[:1].lower() + part[1:] for part in parts)


def _unknown(keys: Sequence[str | int], model: type[BaseModel]) -> str:
    """For a key that its table does not have."""
    names = list(table_fields(model, keys[:-1]))
    near = get_close_matches(str(keys[-1]), names, n=1)
    return f"unknown key; did you mean {near[0]}?" if near else f"unknown key; here are {', '.join(names)}"


def table_fields(model: type[BaseModel], keys: Sequence[str | int]) -> list[str]:
    """The keys of the table that a path leads to; none where it is a free one."""
    for key in keys:
        if isinstance(key, int):
            continue
        found = _model_in(model.model_fields[key].annotation) if key in model.model_fields else None
        if found is None:
            return []
        model = found
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The table in ``Table``, ``Table | None`` or ``list[Table]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(part) for part in getattr(annotation, "__args__", ()))
    return next((one for one in found if one is not None), None)


def _walk(loc: Sequence[str | int], data: Any) -> tuple[list[str | int], list[str]]:
    """The part of a location that is in the data, as keys and as a reader calls them: stages and terms by name.

    Pydantic's locations go on with the alternatives of a union, which no recipe contains.
    """
    keys: list[str | int] = []
    labels: list[str] = []
    for part in loc:
        if isinstance(data, Mapping) and part in data:
            labels.append(str(part))
            data = data[part]
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            labels.append(_label(data, part, keys))
            data = data[part]
        else:
            continue
        keys.append(part)
    return keys, labels


def _label(tables: list[Any], idx: int, keys: Sequence[str | int]) -> str:
    name_key = {"stages": "name", "objective": "term"}.get(str(keys[-1]) if keys else "")
    return labels_of(tables, name_key)[idx] if name_key else str(idx)


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
