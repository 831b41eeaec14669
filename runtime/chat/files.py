"""The chat templates of a model's folder, wherever the version of transformers that saved it has put them.

The newest place wins and the older ones are not looked at, as in transformers: files of their own
(``chat_template.jinja``, ``additional_chat_templates/NAME.jinja``), ``chat_template.json``, and the key
``chat_template`` of ``tokenizer_config.json``, which is a string or a list of named templates.
"""

from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ModelError, TapsterError
from ..json_file import read_optional_json

DEFAULT = "default"
KEY = "chat_template"
FILE = "chat_template.jinja"
FOLDER = "additional_chat_templates"


class FoundTemplates(NamedTuple):
    """The templates by name, the one without a name as "default", and the files that they were found in."""

    templates: dict[str, str]
    source: str


def find_templates(
    folder: Path, tokenizer_config: dict[str, Any], error: type[TapsterError] = ModelError
) -> FoundTemplates:
    """What the folder has. ``error`` is raised for a template that is no text."""
    paths = {DEFAULT: folder / FILE}
    paths |= {path.stem: path for path in sorted((folder / FOLDER).glob("*.jinja"))}
    in_files = {name: _read_text(path, error) for name, path in paths.items() if path.is_file()}
    if in_files:
        return FoundTemplates(in_files, ", ".join(paths[name].relative_to(folder).as_posix() for name in in_files))
    json_path = folder / "chat_template.json"
    if found := _declared(read_optional_json(json_path, error).get(KEY), json_path, error):
        return FoundTemplates(found, f"{json_path.name}: {KEY}")
    found = _declared(tokenizer_config.get(KEY), folder / "tokenizer_config.json", error)
    return FoundTemplates(found, f"tokenizer_config.json: {KEY}")


def _read_text(path: Path, error: type[TapsterError]) -> str:
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as cause:
        raise error(f"the chat template {path} is no UTF-8 ({cause}): save it as UTF-8") from cause
    except OSError as cause:
        raise error(f"cannot read {path}: {cause.strerror}") from cause


def _declared(value: Any, path: Path, error: type[TapsterError]) -> dict[str, str]:
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        pairs = [(item.get("name"), item.get("template")) for item in value]
    elif isinstance(value, dict):
        pairs = list(value.items())
    else:
        pairs = [] if value is None else [(DEFAULT, value)]
    templates = {name: text for name, text in pairs if isinstance(name, str) and isinstance(text, str)}
    if len(templates) < len(pairs):
        raise error(f"{KEY} in {path} is neither a text nor a list of named ones: repair or remove it")
    return templates
