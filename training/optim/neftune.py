"""NEFTune (arXiv 2310.05914): uniform noise on the embeddings while training.

``paper``: alpha / sqrt(L d) · U(-1, 1), with L the length of the sequence that a token stands in, without padding.
``supertrainer``: alpha / sqrt(L d) · U(0, 1), with L the stage's sequence length; what Memphis was trained with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ..recipe.schema import Neftune

if TYPE_CHECKING:
    from torch import Tensor, nn


class EmbeddingNoise:
    """A forward hook of an embedding. ``lengths`` are those of the sequences of the next batch, (B, 1) or (B, T)."""

    def __init__(self, options: Neftune, sequence_length: int) -> None:
        self._options = options
        self._sequence_length = sequence_length
        self.lengths: Tensor | None = None

    def attach(self, embedding: nn.Module) -> Any:
        """Returns the handle that takes the noise away again."""
        return embedding.register_forward_hook(self)

    def __call__(self, module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return output + self._noise(output) if module.training else output

    def _noise(self, output: Tensor) -> Tensor:
        uniform = torch.rand(output.shape, dtype=torch.float32, device=output.device)
        if self._options.variant == "supertrainer":
            lengths = torch.tensor(float(self._sequence_length), device=output.device)
        else:
            uniform = 2 * uniform - 1
            assert self.lengths is not None, "the lengths are set before each forward pass"
            lengths = self.lengths.unsqueeze(-1).float()
        return (self._options.alpha / (lengths * output.shape[-1]).sqrt() * uniform).to(output.dtype)
