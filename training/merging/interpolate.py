"""Between two tensors: along the straight line, or along the great circle that joins their directions.

``weight`` is the share of the second tensor: 0 gives the first, 1 the second. All arithmetic is float32; the result has
the wider of the two dtypes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

_PARALLEL = 0.9995
"""Beyond this cosine the line and the arc are the same to float32, and the arc divides by almost nothing. Opposite
directions have no arc of their own."""


def lerp(first: Tensor, second: Tensor, weight: float) -> Tensor:
    """``(1 − t)·a + t·b``."""
    return torch.lerp(first.float(), second.float(), weight).to(_dtype(first, second))


def slerp(first: Tensor, second: Tensor, weight: float) -> Tensor:
    """``sin((1 − t)Ω)/sin Ω · a + sin(tΩ)/sin Ω · b`` with ``cos Ω = ⟨a, b⟩ / (‖a‖ ‖b‖)``, over the whole tensor as one
    vector (Shoemake 1985); ``lerp`` where the tensors are parallel, or one is zero."""
    a, b = first.float(), second.float()
    lengths = a.norm() * b.norm()
    cosine = float(a.flatten() @ b.flatten() / lengths) if lengths > 0 else 1.0
    if abs(cosine) > _PARALLEL:
        return lerp(first, second, weight)
    angle = torch.tensor(cosine).acos()
    mixed = torch.sin((1 - weight) * angle) * a + torch.sin(weight * angle) * b
    return (mixed / angle.sin()).to(_dtype(first, second))


def _dtype(first: Tensor, second: Tensor) -> torch.dtype:
    return torch.promote_types(first.dtype, second.dtype)
