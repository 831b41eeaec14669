"""Rotary embeddings read back: the frequency, and the way it is stretched for long contexts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..gguf.architectures.rope import Rope, frequency_factors

if TYPE_CHECKING:
    from .config import Keys

_DEFAULT_BASE = 10000.0
_FREQUENCIES = "rope_freqs.weight"


def rope_config(keys: Keys) -> dict[str, Any]:
    """``rope_theta`` and ``rope_scaling``, in the form that transformers of both 4 and 5 reads."""
    theta = keys.number("rope.freq_base", _DEFAULT_BASE)
    values: dict[str, Any] = {"rope_theta": theta}
    if keys.architecture == "gemma3":
        values["rope_local_base_freq"] = keys.number("rope.freq_base_swa", _DEFAULT_BASE)
    if scaling := _scaling(keys, theta):
        values["rope_scaling"] = scaling
    return values


def _scaling(keys: Keys, theta: float) -> dict[str, Any] | None:
    if keys.has_tensor(_FREQUENCIES):
        return _by_factors(keys, theta)
    kind = keys.get("rope.scaling.type")
    if kind not in ("linear", "yarn"):
        return None
    factor = keys.number("rope.scaling.factor")
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    original = keys.count("rope.scaling.original_context_length", keys.count("context_length"))
    scaling = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
    if (multiplier := keys.get("rope.scaling.attn_factor")) is not None:
        scaling["attention_factor"] = round(multiplier * (1.0 + 0.1 * math.log(factor)), 6)
    return scaling


def _by_factors(keys: Keys, theta: float) -> dict[str, Any]:
    """The file has what each frequency is divided by. Llama 3's formula where it gives those, else the list itself."""
    factors = keys.model[_FREQUENCIES].float32()
    found = _llama3(factors, theta)
    if found is not None:
        return found
    context, values = keys.count("context_length"), [float(str(factor)) for factor in factors]
    return {
        "rope_type": "longrope",
        "factor": 1.0,
        "attention_factor": 1.0,
        "original_max_position_embeddings": context,
        "short_factor": values,
        "long_factor": values,
    }


def _llama3(factors: np.ndarray, theta: float) -> dict[str, Any] | None:
    """Its parameters, if they give exactly these factors.

    Where 1/f lies between 1/factor and 1, the share ``smooth = (1/f - 1/factor) / (1 - 1/factor)`` is a straight line
    over the wave number: ``smooth = (context / wavelength - low) / (high - low)``. Factors say only how the three
    relate, so low is taken to be 1, as in every published model; and high to be 4 where one factor is all there is.
    """
    factor, num_dims = float(factors.max()), 2 * len(factors)
    between = (factors > 1) & (factors < factor)
    if not between.any():
        return None
    waves = 1.0 / (2 * math.pi * theta ** (np.arange(0, num_dims, 2)[between] / num_dims))
    smooth = (1.0 / factors[between].astype(np.float64) - 1.0 / factor) / (1.0 - 1.0 / factor)
    if len(waves) == 1:
        offset = -1.0 / 3.0
        slope = (smooth[0] - offset) / waves[0]
    else:
        slope, offset = np.polyfit(waves, smooth, 1)
    if offset >= 0:
        return None
    parameters = {
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": round(1.0 - 1.0 / offset, 2),
        "original_max_position_embeddings": round(-slope / offset),
    }
    if not np.allclose(_factors_of(parameters, theta, num_dims), factors, rtol=1e-6, atol=0):
        return None
    return {"rope_type": "llama3", **parameters}


def _factors_of(parameters: dict[str, Any], theta: float, num_dims: int) -> np.ndarray:
    return frequency_factors(Rope(theta, "llama3", 1.0, parameters, "llama"), num_dims)
