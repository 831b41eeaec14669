"""Rotary embeddings as numbers: from a config's words to frequencies, and from those to tables of cosine and sine.

Source: transformers' ``modeling_rope_utils.py``, in float32 where it computes in float32, so that the tables are
those of the reference.
"""

import math

import numpy as np

from ...runtime.errors import ConversionError
from ..gguf.architectures.config import short
from ..gguf.architectures.rope import Rope, frequency_factors, read_rope
from .config import GraphConfig
from .decoder import Rotary

_PARAMETERS: dict[str, frozenset[str]] = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    "dynamic": frozenset({"factor", "original_max_position_embeddings"}),
    "llama3": frozenset({"factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"}),
    "yarn": frozenset(
        {"factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "truncate"}
        | {"mscale", "mscale_all_dim"}
    ),
}


def read_rotary(
    config: GraphConfig, types: tuple[str, ...], *, theta: float, partial: float, head_size: int, context: int
) -> Rotary:
    """The frequencies of a model whose heads have ``head_size``. ConversionError for what is not understood.

    Dynamic scaling begins beyond the context, which the tables do not reach: until there it is none.
    """
    rope = read_rope(config, theta, partial)
    _check(rope, ("default", *types))
    num_dims = int(head_size * rope.partial)
    if num_dims % 2 or not 2 <= num_dims <= head_size:
        raise ConversionError(
            f"config.json has partial_rotary_factor = {rope.partial:g}, which is {num_dims} of a head's {head_size} "
            f"dimensions: an even number is needed"
        )
    frequencies = _plain(rope.theta, num_dims)
    if rope.type == "linear":
        return Rotary(frequencies / np.float32(rope.number("factor")))
    if rope.type == "llama3":
        return Rotary(frequencies / frequency_factors(rope, num_dims))
    if rope.type == "yarn":
        return _yarn(rope, frequencies, num_dims, context)
    return Rotary(frequencies)


def cosine_and_sine(rotary: Rotary, rows: slice) -> tuple[np.ndarray, np.ndarray]:
    """Two tables (positions, frequencies) in float32 for the positions of ``rows``.

    Angles are float32 as in the reference, their functions exact.
    """
    positions = np.arange(rows.start, rows.stop, dtype=np.float32)
    angles = np.multiply.outer(positions, rotary.frequencies).astype(np.float64)
    scale = np.float64(rotary.scale)
    return (np.cos(angles) * scale).astype(np.float32), (np.sin(angles) * scale).astype(np.float32)


def _plain(theta: float, num_dims: int) -> np.ndarray:
    powers = np.arange(0, num_dims, 2, dtype=np.float32) / np.float32(num_dims)
    return (np.float32(1) / np.power(np.float32(theta), powers)).astype(np.float32)


def _check(rope: Rope, allowed: tuple[str, ...]) -> None:
    if not isinstance(rope.type, str) or rope.type not in allowed:
        raise ConversionError(
            f"config.json has rope_type = {short(rope.type)}: for {rope.target} tapster knows {', '.join(allowed)}"
        )
    for name, value in rope.parameters.items():
        if name not in _PARAMETERS[rope.type]:
            raise ConversionError(
                f"config.json has rope_parameters.{name} = {short(value)}, which tapster does not know for "
                f"{rope.type!r}: it may change what the model computes; remove the key if it does not"
            )
    if rope.theta <= 0 or ("factor" in rope.parameters and rope.number("factor") <= 0):
        raise ConversionError(f"config.json has a rope_theta ({rope.theta:g}) or a rope factor that is not above zero")


def _yarn(rope: Rope, frequencies: np.ndarray, num_dims: int, context: int) -> Rotary:
    """Fast frequencies stay, slow ones are divided by the factor, between the two a ramp leads over."""
    factor = rope.number("factor")
    original = rope.number("original_max_position_embeddings", context)
    low = _turning(rope, rope.number("beta_fast", 32), num_dims, original)
    high = _turning(rope, rope.number("beta_slow", 1), num_dims, original)
    if rope.parameters.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, num_dims - 1)
    span = high - low if high != low else 0.001
    ramp = np.clip((np.arange(num_dims // 2, dtype=np.float32) - np.float32(low)) / np.float32(span), 0, 1)
    kept = np.float32(1) - ramp.astype(np.float32)
    slowed = frequencies / np.float32(factor)
    mixed = slowed * (np.float32(1) - kept) + frequencies * kept
    return Rotary(mixed.astype(np.float32), _attention_factor(rope, factor))


def _turning(rope: Rope, turns: float, num_dims: int, original: float) -> float:
    """At which dimension a frequency makes this many turns within the original context."""
    return num_dims * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))


def _attention_factor(rope: Rope, factor: float) -> float:
    if "attention_factor" in rope.parameters:
        return rope.number("attention_factor")
    if rope.parameters.get("mscale") and rope.parameters.get("mscale_all_dim"):
        return _scale(factor, rope.number("mscale")) / _scale(factor, rope.number("mscale_all_dim"))
    return _scale(factor, 1.0)


def _scale(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0
