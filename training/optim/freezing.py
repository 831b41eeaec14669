"""Which parameters of a model are trained, by patterns of their names."""

import re
from collections.abc import Iterable

from torch import nn

from ...runtime.errors import ConfigError


def choose_trained(model: nn.Module, frozen: Iterable[str], trained: Iterable[str]) -> tuple[int, int]:
    """Train what ``trained`` finds (everything where it is empty) and ``frozen`` does not.

    Never switches on what was off already (the weights under a LoRA). A tied weight answers to each of its names.
    Returns how many numbers are trained, and of how many. Raises ConfigError for a pattern that finds nothing.
    """
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    off = _found(frozen, names, "frozen")
    on = _found(trained, names, "trained") if (trained := list(trained)) else set(names)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, parameter in parameters.items():
        if name in off:
            parameter.requires_grad_(False)
    kept = {id(parameters[name]) for name in on}
    for parameter in model.parameters():
        if id(parameter) not in kept:
            parameter.requires_grad_(False)
    return _count(model)


def _found(patterns: Iterable[str], names: list[str], key: str) -> set[str]:
    found = set()
    for pattern in patterns:
        hits = {name for name in names if _compiled(pattern, key).search(name)}
        if not hits:
            examples = ", ".join(names[:: max(1, len(names) // 4)][:4])
            raise ConfigError(f"{key}: no parameter's name has {pattern!r} in it; names are like {examples}")
        found |= hits
    return found


def _compiled(pattern: str, key: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{key}: {pattern!r} is no regular expression: {error}") from None


def _count(model: nn.Module) -> tuple[int, int]:
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    num_trained = sum(number for number, is_trained in counts if is_trained)
    if num_trained == 0:
        raise ConfigError("every parameter is frozen: leave something to train in `frozen` and `trained`")
    return num_trained, sum(number for number, _ in counts)
