"""Whether a teacher's logits are of the student's tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...runtime.errors import ConfigError, ModelError

_ALIKE = 0.99
"""Models of one family rename a few control tokens; other tokenizers share hardly an id."""


def vocabulary_of(model: Any) -> int:
    """Rows of the output matrix."""
    return int(model.get_output_embeddings().weight.shape[0])


def common_vocabulary(teacher: Any, student: Any, folder: Path, tokenizer: Any) -> int:
    """Of how many tokens both have logits. ``folder`` has the teacher's tokenizer, ``tokenizer`` is the student's.

    Large models of a family may have more rows than small ones, which no token uses. ConfigError when their logits are
    not of the same tokens.
    """
    theirs = vocabulary_of(teacher)
    if student is None:
        return theirs
    ours = vocabulary_of(student)
    is_known = tokenizer is not None and (folder / "tokenizer_config.json").is_file()
    if is_known and other_tokenizer(folder, tokenizer) is not None:
        raise ConfigError(f"the teacher has another tokenizer ({theirs} logits) than the student ({ours}): {_WAY_OUT}")
    if theirs < ours or (theirs > ours and not is_known):
        raise ConfigError(f"the teacher has logits of {theirs} tokens and the student of {ours}: {_WAY_OUT}")
    return ours


_WAY_OUT = "use a text-cache, or an online teacher with the terms uld and alm alone"


def other_tokenizer(folder: Path, ours: Any) -> Any | None:
    """The teacher's tokenizer, if it is another one than the student's. ModelError when it cannot be read."""
    from transformers import AutoTokenizer

    try:
        theirs = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())[:300]
        raise ModelError(f"the tokenizer of the teacher in {folder} cannot be read: {said}") from error
    return None if same_tokens(theirs, ours) else theirs


def same_tokens(one: Any, other: Any) -> bool:
    """Whether two tokenizers call the same tokens by the same ids, all but a few."""
    first, second = one.get_vocab(), other.get_vocab()
    alike = sum(second.get(token) == token_id for token, token_id in first.items())
    return alike >= _ALIKE * max(len(first), len(second))
