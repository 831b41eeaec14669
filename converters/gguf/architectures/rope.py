"""Rotary position embeddings: what a config says about them, and how GGUF says it.

Sources: transformers' ``modeling_rope_utils.py`` for the meaning of the parameters, llama.cpp's ``llama-context.cpp``
and ``ggml_rope_ext`` for what is done with the keys. Of YaRN's parameters llama.cpp reads only the factor, the
original context and one multiplier of the attention for these architectures; the rest has to be at its default.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....runtime.errors import ConversionError
from .config import Config, as_number, short

_KNOWN = {"rope_theta", "rope_type", "type", "partial_rotary_factor", "finetuned"}
_PARAMETERS = {
    "default": set[str](),
    "linear": {"factor"},
    "dynamic": {"factor", "original_max_position_embeddings"},
    "yarn": {
        *("factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow"),
        *("mscale", "mscale_all_dim", "truncate"),
    },
    "llama3": {"factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"},
}


@dataclass(frozen=True)
class Rope:
    """One way to turn positions into angles. ``parameters`` are those of its ``type``, by transformers' names."""

    theta: float
    type: str
    partial: float
    parameters: dict[str, Any]
    target: str

    def number(self, name: str, default: float | None = None) -> float:
        return as_number(f"rope_parameters.{name}", self.parameters.get(name, default), self.target)


def read_rope(
    config: Config,
    theta: float = 10000.0,
    partial: float = 1.0,
    theta_key: str = "rope_theta",
    layer_type: str | None = None,
) -> Rope:
    """The rotary embedding of a config, in transformers 5's form (``rope_parameters``) or the older one.

    ``layer_type`` chooses among several kinds of layers; ``theta`` and ``partial`` are the architecture's defaults.
    """
    given = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if isinstance(given, dict) and layer_type:
        given = _for_layers(given, layer_type)
    if not isinstance(given, dict) or any(isinstance(value, dict) for value in given.values()):
        raise ConversionError(f"config.json has rope_parameters = {short(given)}, which {config.target} does not have")
    given = {key: value for key, value in given.items() if value is not None}
    old_theta, old_partial = config.get(theta_key, theta), config.get("partial_rotary_factor", partial)
    config.ignore("rope_scaling", "rope_parameters")
    rope_type = given.get("rope_type", given.get("type", "default"))
    if rope_type == "default":
        config.ignore("original_max_position_embeddings")
    return Rope(
        theta=as_number("rope_theta", given.get("rope_theta", old_theta), config.target),
        type=rope_type,
        partial=as_number("partial_rotary_factor", given.get("partial_rotary_factor", old_partial), config.target),
        parameters={key: value for key, value in given.items() if key not in _KNOWN},
        target=config.target,
    )


def _for_layers(given: dict[str, Any], layer_type: str) -> dict[str, Any]:
    """The parameters of one kind of layers. The older form has one set only, which is for full attention."""
    if any(isinstance(value, dict) for value in given.values()):
        return given.get(layer_type) or {}
    return given if layer_type == "full_attention" else {}


def check_rope(rope: Rope, types: Iterable[str]) -> None:
    """ConversionError for a scaling that the architecture in llama.cpp does not do, or a parameter nobody knows."""
    allowed = ("default", *types)
    if not isinstance(rope.type, str) or rope.type not in allowed:
        raise ConversionError(
            f"config.json has rope_type = {short(rope.type)}: llama.cpp does only {', '.join(allowed)} in {rope.target}"
        )
    for name, value in rope.parameters.items():
        if name not in _PARAMETERS[rope.type]:
            raise ConversionError(
                f"config.json has rope_parameters.{name} = {short(value)}, which tapster does not know for "
                f"{rope.type!r}: it may change what the model computes; remove the key if it does not"
            )


def rope_metadata(rope: Rope, context_length: int) -> dict[str, Any]:
    """The keys below ``ARCH.rope.``. The rest of llama3's scaling is a tensor, see ``frequency_factors``."""
    if rope.theta <= 0 or ("factor" in rope.parameters and rope.number("factor") <= 0):
        raise ConversionError(f"config.json has a rope_theta ({rope.theta:g}) or a rope factor that is not above zero")
    values: dict[str, Any] = {"freq_base": rope.theta}
    if rope.type in ("linear", "yarn"):
        values |= {"scaling.type": rope.type, "scaling.factor": rope.number("factor")}
    if rope.type == "yarn":
        original = rope.number("original_max_position_embeddings", context_length)
        if not 1 <= original < 2**31:
            raise ConversionError(f"config.json has original_max_position_embeddings = {original:g}, no context length")
        values["scaling.original_context_length"] = int(original)
        multiplier = _attention_multiplier(rope)
        if not math.isclose(multiplier, 1.0, rel_tol=1e-6):
            values["scaling.attn_factor"] = multiplier
    return values


def _attention_multiplier(rope: Rope) -> float:
    """What YaRN's own 1 + 0.1 ln(factor) is multiplied by, so that the config's attention factor comes out."""
    for name, default in (("beta_fast", 32), ("beta_slow", 1), ("truncate", True)):
        if rope.parameters.get(name, default) != default:
            raise ConversionError(
                f"config.json has rope_parameters.{name} = {short(rope.parameters[name])}: llama.cpp always takes "
                f"{default} in {rope.target}"
            )
    factor = rope.number("factor")
    plain = _yarn_scale(factor, 1.0)
    if "attention_factor" in rope.parameters:
        return rope.number("attention_factor") / plain
    mscale, all_dims = rope.parameters.get("mscale"), rope.parameters.get("mscale_all_dim")
    if mscale and all_dims:
        return _yarn_scale(factor, rope.number("mscale")) / _yarn_scale(factor, rope.number("mscale_all_dim")) / plain
    return 1.0


def _yarn_scale(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def frequency_factors(rope: Rope, num_dims: int) -> np.ndarray:
    """Llama 3's scaling: by what each of the ``num_dims / 2`` frequencies is divided, float32.

    Short waves stay, long ones are slowed down by ``factor``, those between take a mixture. In float32 throughout,
    as transformers computes it.
    """
    factor = np.float32(rope.number("factor"))
    low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
    context = rope.number("original_max_position_embeddings")
    if not low < high:
        raise ConversionError(f"config.json has low_freq_factor = {low:g}, not below high_freq_factor = {high:g}")
    powers = np.arange(0, num_dims, 2, dtype=np.float32) / np.float32(num_dims)
    wavelengths = np.float32(2 * math.pi) / (np.float32(1) / np.power(np.float32(rope.theta), powers))
    smooth = (np.float32(context) / wavelengths - np.float32(low)) / np.float32(high - low)
    mixed = np.float32(1) / ((np.float32(1) - smooth) / factor + smooth)
    factors = np.where(wavelengths > context / low, factor, mixed)
    return np.where(wavelengths < context / high, np.float32(1), factors).astype(np.float32)
