"""Chat templates as GGUF holds them: under names that its keys can spell, and only such as can be compiled."""

import re
from collections.abc import Mapping

from ...runtime.chat.template import ChatTemplate
from ...runtime.errors import ConversionError, TapsterError
from ..checkpoint.checkpoint import Checkpoint
from ..checkpoint.templates import DEFAULT
from .plan import Value

_KEY = "tokenizer.chat_template"


def template_names(templates: Mapping[str, str]) -> dict[str, str]:
    """The templates by their names in a GGUF file: ``tool-use`` is ``tool_use`` there.

    ConversionError when two of them get the same name.
    """
    names: dict[str, str] = {}
    for name in templates:
        spelled = re.sub(r"[^a-zA-Z0-9]", "_", name)
        if (other := names.setdefault(spelled, name)) != name:
            raise ConversionError(
                f"the chat templates {other!r} and {name!r} are both {spelled!r} in GGUF: rename one of them"
            )
    return {spelled: templates[name] for spelled, name in names.items()}


def template_metadata(templates: Mapping[str, str]) -> dict[str, Value]:
    """The chat template, and named ones under their names as GGUF can spell them."""
    found = template_names(templates)
    named = [name for name in found if name != DEFAULT]
    values: dict[str, Value] = {_KEY if name == DEFAULT else f"{_KEY}.{name}": text for name, text in found.items()}
    return values | ({"tokenizer.chat_templates": named} if named else {})


def compile_templates(checkpoint: Checkpoint, bos: str | None, eos: str | None) -> dict[str, ChatTemplate]:
    """All templates by name. ConversionError when one of them is none."""
    try:
        return {
            name: ChatTemplate(source, bos_token=bos, eos_token=eos, name=name)
            for name, source in checkpoint.chat_templates.items()
        }
    except TapsterError as error:
        raise ConversionError(f"{checkpoint.path}: {error}") from error
