"""Hidden states aligned by their values: the mean of (h_student - h_teacher)^2 over predictions, pairs of layers and
dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from .hidden_states import compared
from .options import HiddenOptions

if TYPE_CHECKING:
    from torch import Tensor

    from .batch import Forward, GlobalBatch


@dataclass(frozen=True)
class HiddenMse:
    options: HiddenOptions
    label: str = "hidden_mse"

    def value(self, forward: Forward, batch: GlobalBatch) -> Tensor:
        pairs = [(ours - theirs).square().mean(-1).sum() for ours, theirs in compared(self.options, forward)]
        return torch.stack(pairs).mean() / max(batch.predictions, 1)
