"""The settings in a model's folder: what its JSON files say, and where."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from .checkpoint_files import CONFIG, GENAI_CONFIG
from .errors import ModelError
from .json_file import read_optional_json

GENERATION_CONFIG = "generation_config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
SPECIAL_TOKENS = "special_tokens_map.json"


class Found(NamedTuple):
    """A value and where it stands, such as ``config.json: vocab_size``."""

    value: Any
    source: str


@dataclass(frozen=True)
class FolderConfigs:
    """The files by name; those that are not there are empty."""

    path: Path
    files: Mapping[str, Mapping[str, Any]]

    @property
    def config(self) -> Mapping[str, Any]:
        """config.json."""
        return self.files[CONFIG]

    @property
    def genai(self) -> Mapping[str, Any]:
        """What genai_config.json says of the model; its sampling settings are in the file's ``search``."""
        return _object(self.files[GENAI_CONFIG].get("model"))

    def settings(self, *keys: str) -> Iterator[Found]:
        """The values of config.json at ``keys``, of a model with several parts also those of its text model."""
        places = (("", self.config), ("text_config.", _object(self.config.get("text_config"))))
        for prefix, place in places:
            for key in keys:
                if place.get(key) is not None:
                    yield Found(place[key], f"{CONFIG}: {prefix}{key}")

    def ids(self, key: str) -> Iterator[Found]:
        """Every declaration of a token's id or ids, those of generation_config.json first."""
        if (value := self.files[GENERATION_CONFIG].get(key)) is not None:
            yield Found(value, f"{GENERATION_CONFIG}: {key}")
        yield from self.settings(key)
        if (value := self.genai.get(key)) is not None:
            yield Found(value, f"{GENAI_CONFIG}: model.{key}")

    def vocabulary_rows(self) -> int | None:
        """How many tokens the model has rows for; None where nothing says so."""
        declared = [found.value for found in self.settings("vocab_size")] + [self.genai.get("vocab_size")]
        return next((value for value in declared if type(value) is int and value > 0), None)


def read_configs(path: Path) -> FolderConfigs:
    """The settings in a folder. ModelError when a file is damaged, or when none of them says what the model is."""
    names = (CONFIG, GENERATION_CONFIG, TOKENIZER_CONFIG, SPECIAL_TOKENS, GENAI_CONFIG)
    if not any((path / name).is_file() for name in (CONFIG, GENAI_CONFIG)):
        raise ModelError(f"{path} has no {CONFIG}, which says what the model is: download it again")
    return FolderConfigs(path, {name: read_optional_json(path / name) for name in names})


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
