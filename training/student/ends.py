"""How a student's answers end: the ids and the text at which whoever runs it has to stop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime.chat.builtin import builtin_source
from ...runtime.chat.end_of_turn import derive_end_of_turn
from ...runtime.chat.template import ChatTemplate
from ...runtime.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def template_source(wanted: str | None, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The Jinja of the recipe's ``chat_template``: a built-in name, a file, or Jinja itself; else the tokenizer's."""
    if wanted is None:
        own = tokenizer.chat_template
        return own.get("default") if isinstance(own, dict) else own
    return wanted_source(wanted)


def wanted_source(wanted: str) -> str:
    """ConfigError for a name that is none, a file that cannot be read, or what is no Jinja."""
    source = _source(wanted)
    try:
        ChatTemplate(source, bos_token=None, eos_token=None)
    except ModelError as error:
        raise ConfigError(f"student.chat_template: {error}") from error
    return source


def _source(wanted: str) -> str:
    if any(sign in wanted for sign in "{%\n"):
        return wanted
    path = Path(wanted).expanduser()
    if path.suffix != ".jinja":
        return builtin_source(wanted)
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{wanted} is no UTF-8 text") from None
    except OSError as error:
        raise ConfigError(f"cannot read {wanted}: {error.strerror}") from error


def turn_end(source: str | None, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The text that ends an answer by the template. ConfigError when the template is no Jinja."""
    if source is None:
        return None
    bos, eos = (None if token is None else str(token) for token in (tokenizer.bos_token, tokenizer.eos_token))
    try:
        return derive_end_of_turn(ChatTemplate(source, bos_token=bos, eos_token=eos))
    except ModelError as error:
        raise ConfigError(f"student.chat_template: {error}") from error


def endings(
    tokenizer: PreTrainedTokenizerBase, source: str | None, stop_strings: Sequence[str], declared: Any = None
) -> tuple[list[int], list[str]]:
    """The ids that end an answer, and the texts that do and are no single token of control.

    ``declared``: the ids that the model had. An end of turn that is one special token counts among the ids.
    """
    eos: Any = tokenizer.eos_token_id
    ids: list[int] = [] if eos is None else [eos]
    ids += [declared] if isinstance(declared, int) else list(declared or [])
    texts = list(stop_strings)
    if end := turn_end(source, tokenizer):
        added: dict[str, int] = tokenizer.get_added_vocab()  # type: ignore[operator]  any tokenizer has it
        token = added.get(end)
        if token is None:
            texts.append(end)
        else:
            ids.append(token)
    return list(dict.fromkeys(ids)), list(dict.fromkeys(texts))
