"""Weights as they come and as they should not, for rounding to be tried on."""

import numpy as np


def odd_weights(shape: str) -> np.ndarray:
    rng = np.random.default_rng(7)
    values = rng.normal(0, 0.02, (16, 2048))
    if shape == "heavy tails":
        values = 0.02 * rng.standard_t(3, values.shape)
    elif shape == "outliers":
        values[rng.random(values.shape) < 0.002] *= 60
    elif shape == "positive":
        values = np.abs(values) * rng.lognormal(0, 2, (16, 1))
    elif shape == "half tiny":
        values[:8] *= 1e-6
    elif shape == "uneven columns":
        values *= rng.lognormal(0, 1, (1, 2048))
    elif shape == "sparse":
        values[rng.random(values.shape) < 0.9] = 0
    return np.ascontiguousarray(values, np.float32)


SHAPES = ("normal", "heavy tails", "outliers", "positive", "half tiny", "uneven columns", "sparse")
