"""Hidden states aligned by their direction: the mean of 1 - cos(h_student, h_teacher) over predictions and pairs of
layers.

The alignment by which AFM-4.5B was turned to Kimi Delta Attention, every layer with its own (weight 0.6, beside
cross-entropy and KL at 0.2 each). It is taken where a label is predicted, like the other terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cosine_similarity

from .hidden_states import compared
from .options import HiddenOptions

if TYPE_CHECKING:
    from torch import Tensor

    from .batch import Forward, GlobalBatch


@dataclass(frozen=True)
class HiddenCosine:
    options: HiddenOptions
    label: str = "hidden_cosine"

    def value(self, forward: Forward, batch: GlobalBatch) -> Tensor:
        pairs = [
            (1.0 - cosine_similarity(ours, theirs, dim=-1)).sum() for ours, theirs in compared(self.options, forward)
        ]
        return torch.stack(pairs).mean() / max(batch.predictions, 1)
