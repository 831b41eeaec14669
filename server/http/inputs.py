"""Inputs of completions and embeddings: a text or token ids, one or a list of them."""

from collections.abc import Sequence
from typing import cast

from ...runtime.engines.base import Tokenizer
from .errors import bad_request

Input = str | list[int]


def as_list(value: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]) -> list[Input]:
    """The inputs one by one."""
    is_single = isinstance(value, str) or isinstance(value[0], int)
    return cast("list[Input]", [value] if is_single else list(value))


def check_ids(ids: Sequence[int], vocab_size: int, param: str) -> None:
    """400 for an id that is no token's."""
    if ids and max(ids) >= vocab_size:
        idx = next(idx for idx, token_id in enumerate(ids) if token_id >= vocab_size)
        message = f"{param} has {ids[idx]} at position {idx}: token ids of this model end at {vocab_size - 1}"
        raise bad_request(message, param)


def checked_inputs(
    value: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]], vocab_size: int, param: str
) -> list[Input]:
    """The inputs one by one, token ids checked."""
    inputs = as_list(value)
    for one in inputs:
        if not isinstance(one, str):
            check_ids(one, vocab_size, param)
    return inputs


def token_ids(inputs: Sequence[Input], tokenizer: Tokenizer) -> list[list[int]]:
    """The ids of each input; a text gets the tokens that the model wants around it."""
    return [tokenizer.encode(one, add_special=True) if isinstance(one, str) else one for one in inputs]
