"""Sliding windows: how far each layer looks back, from the several ways in which configs say it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...runtime.errors import ConversionError
from .config import GraphConfig
from .parts import Sizes

if TYPE_CHECKING:
    from .architectures import Family


def read_windows(family: Family, config: GraphConfig, sizes: Sizes, positions: list[bool]) -> list[int | None]:
    """For each layer the tokens that one looks back at, itself included; None for all of them."""
    absent = None if config.is_null("sliding_window") else family.absent_window
    window = config.size("sliding_window") if "sliding_window" in config else absent
    is_on = config.flag("use_sliding_window", family.window_default) and window is not None
    config.ignore("max_window_layers")
    types = config.names("layer_types")
    if types is None or family.name == "mistral":  # transformers' Mistral looks at the window alone
        slides = _default_schedule(family, config, positions) if is_on else [False] * sizes.layers
    else:
        slides = _schedule_of(types, sizes.layers, is_on)
    return [window if slide and window is not None and window < sizes.context else None for slide in slides]


def _default_schedule(family: Family, config: GraphConfig, positions: list[bool]) -> list[bool]:
    """Every layer; from the first that a key names; or in SmolLM3 those without positions."""
    if family.name == "smollm3":
        return [not has_positions for has_positions in positions]
    first = config.number(family.first_window_key, 28) if family.first_window_key else 0
    return [layer >= first for layer in range(len(positions))]


def _schedule_of(types: list[str], num_layers: int, is_on: bool) -> list[bool]:
    if len(types) != num_layers:
        raise ConversionError(f"config.json has {len(types)} layer_types for num_hidden_layers = {num_layers}")
    if other := next((name for name in types if name not in ("full_attention", "sliding_attention")), None):
        raise ConversionError(f"config.json has {other!r} among its layer_types, which tapster does not know")
    return [is_on and name == "sliding_attention" for name in types]
