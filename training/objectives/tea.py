"""TEA: the tied-embedding anchor (the card of DANTE-Mosaic-3.5B).

    L = || E - E_0 ||_F^2

E is the input embedding, which its student shares with the output; E_0 is E as the stage found it. ``reduction``:
``sum`` is the card's; a drift of 1e-3 in each of SmolLM3's 262.7 M numbers makes it 263, so it all but freezes the
embedding; ``mean`` divides by their number and does next to nothing; ``relative``, divided by || E_0 ||_F^2, means the
same in every model. An optimiser's weight decay should leave E alone: it pulls to zero, against the anchor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import mse_loss

from ...runtime.errors import TrainingError
from .options import TeaOptions

if TYPE_CHECKING:
    from torch import Tensor

    from .batch import Forward, GlobalBatch


class Tea:
    def __init__(self, options: TeaOptions, label: str = "tea") -> None:
        self.options = options
        self.label = label
        self._anchor: Tensor | None = None
        self._divisor = 1.0

    def begin(self, embedding: Tensor) -> None:
        """Keep E_0, in the precision that it comes in."""
        self._anchor = embedding.detach().clone()
        if self.options.reduction == "mean":
            self._divisor = float(embedding.numel())
        elif self.options.reduction == "relative":
            self._divisor = max(torch.linalg.vector_norm(self._anchor, dtype=torch.float32).item() ** 2, 1e-12)

    def value(self, forward: Forward, batch: GlobalBatch) -> Tensor:
        """The same in every micro-batch, so each contributes its share."""
        if self._anchor is None or forward.embedding is None:
            raise TrainingError(
                f"{self.label} has no embedding to hold on to: call Assembly.begin before the first step"
            )
        if self._anchor.shape != forward.embedding.shape:
            shapes = f"{tuple(self._anchor.shape)} and is {tuple(forward.embedding.shape)}"
            raise TrainingError(f"{self.label} cannot anchor an embedding that was {shapes} now")
        self._anchor = self._anchor.to(forward.embedding.device)
        distance = mse_loss(forward.embedding.float(), self._anchor.float(), reduction="sum")
        return distance / (self._divisor * max(batch.micro_batches, 1))
