"""Kimi Delta Attention as it is trained without fla's kernels: the same numbers as transformers' class, in less memory.

transformers' plain PyTorch keeps a weight for each pair of tokens of a chunk and each channel, in every layer, for the
backward pass. Here the pairs are computed by blocks (``delta_rule``) and nothing between the projections and the output
is kept: the backward pass computes it again.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import pad, silu
from torch.utils.checkpoint import checkpoint
from transformers.models.kimi_linear.modeling_kimi_linear import KimiLinearDeltaAttention, l2norm

from .delta_rule import delta_rule

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class ChunkedDeltaAttention(KimiLinearDeltaAttention):
    """KimiLinearDeltaAttention; with a cache, and where fla's kernels run, it is transformers' own."""

    def forward(
        self, hidden_states: Tensor, cache_params: Any = None, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        if cache_params is not None or (hidden_states.is_cuda and _has_kernels()):
            return super().forward(hidden_states, cache_params, attention_mask, **kwargs)
        if attention_mask is not None:
            hidden_states = hidden_states * attention_mask[:, :, None].to(hidden_states.dtype)
        mixed = torch.cat([project(hidden_states) for project in (self.q_proj, self.k_proj, self.v_proj)], dim=-1)
        inputs = (mixed, self.conv1d.weight, self.forget_gate(hidden_states), self.b_proj(hidden_states).sigmoid())
        output = checkpoint(self._mix, *inputs, use_reentrant=False) if torch.is_grad_enabled() else self._mix(*inputs)
        gate = self.g_b_proj(self.g_a_proj(hidden_states)).view(output.shape)
        return self.o_proj(self.o_norm(output, gate).flatten(-2))

    def _mix(self, mixed: Tensor, taps: Tensor, log_decay: Tensor, beta: Tensor) -> Tensor:
        """(B, T, H, V) from the projections (B, T, 3·H·K), the gate (B, T, H, K) and beta (B, T, H)."""
        with torch.autocast(mixed.device.type, enabled=False):
            convolved = silu(causal_convolution(mixed.float(), taps.float()))
            query, key, value = (
                part.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)
                for part in convolved.chunk(3, dim=-1)
            )
            log_decay, beta = log_decay.float().transpose(1, 2), beta.float().transpose(1, 2)
            output = delta_rule(l2norm(query) * self.head_dim**-0.5, l2norm(key), value, log_decay, beta)
        return output.transpose(1, 2).to(mixed.dtype)


def causal_convolution(x: Tensor, taps: Tensor) -> Tensor:
    """(B, T, D) with ``taps`` (D, 1, W): of each channel with itself, the last tap on the token itself."""
    width = taps.shape[-1]
    padded = pad(x, (0, 0, width - 1, 0))
    return sum(padded[:, tap : tap + x.shape[1]] * taps[:, 0, tap] for tap in range(width))  # type: ignore[return-value]  no empty sum


@cache
def _has_kernels() -> bool:
    return find_spec("fla") is not None


def use_chunked_attention(model: PreTrainedModel) -> PreTrainedModel:
    """Let all KDA layers of ``model`` compute this way, without a cache. Weights and their names stay."""
    model.config.use_cache = False
    for module in model.modules():
        if type(module) is KimiLinearDeltaAttention:
            module.__class__ = ChunkedDeltaAttention
    return model
