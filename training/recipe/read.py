"""From a recipe's name or file to a recipe that is known to make sense."""

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ...runtime.errors import ConfigError
from .checks import Fault, check
from .faults import explained
from .find import FOLDER, recipe_file
from .merge import from_path, merged, near_name, other_data
from .schema import Recipe


def read_recipe(
    name_or_path: str,
    *,
    small: bool = False,
    data: Iterable[str] = (),
    overrides: Iterable[tuple[str, str]] = (),
) -> Recipe:
    """The recipe, validated whole. ``small`` applies its small form, ``data`` are sources that replace the training
    data (``[STAGE=]SOURCE``), ``overrides`` are key paths with values as TOML writes them, or as plain text.

    ConfigError names the file, the key and what to write instead.
    """
    path = recipe_file(name_or_path)
    file = path.name if path.parent == FOLDER else str(path)
    table = _parse(path)
    small_form = table.pop("small", {})
    recipe = _validate(file, _changed(file, _small(file, table, small_form) if small else table, data, overrides))
    if small_form and not small:
        _validate(f"{file}, small form", _small(file, table, small_form))
    return recipe


def _changed(
    file: str, table: dict[str, Any], data: Iterable[str], overrides: Iterable[tuple[str, str]]
) -> dict[str, Any]:
    names = _stage_names(table)
    try:
        table = merged(table, other_data(names, [_data(text, names) for text in data]))
        for key, text in overrides:
            if key.partition(".")[0] == "small":
                raise ConfigError(f"{key}: set the key itself, without 'small': it holds in the form that runs")
            table = merged(table, from_path(key, _value(text)))
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None
    return table


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the recipe {path}: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error


def _small(file: str, table: dict[str, Any], change: Any) -> dict[str, Any]:
    if not isinstance(change, Mapping):
        raise ConfigError(f"{file}: small: is {change!r}, and the small form is a table")
    if not change:
        raise ConfigError(f"{file}: the recipe has no small form: leave out --small, or add a table [small]")
    try:
        return merged(table, change)
    except ConfigError as error:
        raise ConfigError(f"{file}: small.{error}") from None


def _validate(file: str, table: Mapping[str, Any]) -> Recipe:
    try:
        recipe = Recipe.model_validate_json(json.dumps(table, default=str), strict=True)
        check(recipe)
    except ValidationError as error:
        key, what = explained(error, table, Recipe)
        raise ConfigError(f"{file}: {key}: {what}" if key else f"{file}: {what}") from None
    except Fault as fault:
        raise ConfigError(f"{file}: {fault}") from None
    return recipe


def _stage_names(table: Mapping[str, Any]) -> list[str]:
    stages = table.get("stages")
    tables = stages if isinstance(stages, list) else []
    return [stage["name"] for stage in tables if isinstance(stage, Mapping) and isinstance(stage.get("name"), str)]


def _data(text: str, stages: Sequence[str]) -> tuple[str | None, str]:
    """``[STAGE=]SOURCE``. A path may contain an equals sign of its own."""
    stage, equals, source = text.partition("=")
    if equals and stage in stages:
        text = source
    elif equals and stage.replace("-", "").isidentifier() and not Path(text).exists():
        raise ConfigError(f"--data {text}: there is no stage {stage}; {near_name(stage, stages)}")
    else:
        stage = ""
    if not text:
        raise ConfigError("--data is empty: give a file, a folder, hub:ORG/NAME or sample:NAME")
    return stage or None, text


def _value(text: str) -> Any:
    """A value as TOML writes it; what is none is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
