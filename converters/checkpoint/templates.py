"""The chat templates of a checkpoint, wherever its version of transformers has put them.

The newest place wins and the older ones are not looked at, as in transformers: files of their own
(``chat_template.jinja``, ``additional_chat_templates/NAME.jinja``), ``chat_template.json``, and the key
``chat_template`` of ``tokenizer_config.json``, which is a string or a list of named templates.
"""

from pathlib import Path
from typing import Any

from ...runtime.errors import ConversionError
from .json_file import read_optional_json

DEFAULT = "default"
KEY = "chat_template"
FOLDER = "additional_chat_templates"


def read_templates(folder: Path, tokenizer_config: dict[str, Any]) -> dict[str, str]:
    """The templates by name, the one without a name as "default". ConversionError for one that is no text."""
    in_files = _template_files(folder)
    if in_files:
        return in_files
    json_path = folder / "chat_template.json"
    declared = _declared(read_optional_json(json_path).get(KEY), json_path)
    return declared or _declared(tokenizer_config.get(KEY), folder / "tokenizer_config.json")


def _template_files(folder: Path) -> dict[str, str]:
    paths = {DEFAULT: folder / "chat_template.jinja"}
    paths |= {path.stem: path for path in sorted((folder / FOLDER).glob("*.jinja"))}
    return {name: _read_text(path) for name, path in paths.items() if path.is_file()}


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ConversionError(f"the chat template {path} is no UTF-8 ({error}): save it as UTF-8") from error
    except OSError as error:
        raise ConversionError(f"cannot read {path}: {error.strerror}") from error


def _declared(value: Any, path: Path) -> dict[str, str]:
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        value = {item.get("name"): item.get("template") for item in value}
    elif isinstance(value, str):
        value = {DEFAULT: value}
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for pair in value.items() for text in pair):
        raise ConversionError(f"{KEY} in {path} is neither a text nor a list of named ones: repair or remove it")
    return value
