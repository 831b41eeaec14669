"""The recurrence of Kimi Delta Attention over a whole sequence, by chunks, for training (arXiv 2510.26692, section 3).

For each head with a state ``S`` (K, V), beginning at zero:

    S ← Diag(exp g_t) S;    S ← S + β_t k_t (v_t − Sᵀ k_t)ᵀ;    o_t = Sᵀ q_t

Within a chunk, with ``G`` the running sum of ``g``, this is a triangular system and a few products of matrices, in
which pairs i ≥ j meet with the weight exp(G_i − G_j) for each channel. It may not be split into exp(G_i)·exp(−G_j): the
second overflows where the gate forgets fast. Rows are therefore taken in blocks: against columns before the block, the
sum at the block's first row lies between both, and splits the weight into two factors of at most one; within a block,
the differences are taken one by one. That needs ``_BLOCK`` numbers a channel and token, the plain form a whole chunk's.

Shapes: B batch, H heads, N chunks, C tokens of a chunk, K channels of keys, V of values. All float32.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

CHUNK = 32
_BLOCK = 8


def delta_rule(query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor, beta: Tensor) -> Tensor:
    """(B, H, T, V) from query, key, log_decay (B, H, T, K), value (B, H, T, V) and beta (B, H, T).

    ``query`` and ``key`` are normalised and scaled already; ``log_decay`` is nowhere positive.
    """
    length = query.shape[2]
    query, key, value, log_decay = (_chunks(x) for x in (query, key, value, log_decay))
    beta = _chunks(beta[..., None])
    total = log_decay.cumsum(dim=-2)
    pairs = _decayed_pairs(torch.stack((key * beta, query)), key, total)
    system, attention = pairs[0].tril(-1), pairs[1]
    decayed = total.exp()
    solved = torch.linalg.solve_triangular(
        system, torch.cat((key * beta * decayed, value * beta), dim=-1), upper=False, unitriangular=True
    )
    reads, writes = solved.split((key.shape[-1], value.shape[-1]), dim=-1)
    return _scan(query * decayed, key, total, attention, reads, writes)[:, :, :length]


def _chunks(x: Tensor) -> Tensor:
    """(B, H, T, D) as (B, H, N, C, D), with zeros at the end: they write nothing and forget nothing."""
    x = pad(x, (0, 0, 0, -x.shape[2] % CHUNK))
    return x.view(*x.shape[:2], -1, CHUNK, x.shape[-1])


def _decayed_pairs(left: Tensor, right: Tensor, total: Tensor) -> Tensor:
    """(2, B, H, N, C, C): ``Σ_k left_ik right_jk exp(G_ik − G_jk)`` for j ≤ i, else zero; left (2, B, H, N, C, K)."""
    rows = []
    for start in range(0, CHUNK, _BLOCK):
        block = slice(start, start + _BLOCK)
        parts = [_within_block(left[..., block, :], right[..., block, :], total[..., block, :])]
        if start:
            middle = total[..., start : start + 1, :]
            scaled = left[..., block, :] * (total[..., block, :] - middle).exp()
            before = right[..., :start, :] * (middle - total[..., :start, :]).exp()
            parts.insert(0, scaled @ before.transpose(-1, -2))
        rows.append(pad(torch.cat(parts, dim=-1), (0, CHUNK - start - _BLOCK)))
    return torch.cat(rows, dim=-2)


def _within_block(left: Tensor, right: Tensor, total: Tensor) -> Tensor:
    size = total.shape[-2]
    later = torch.ones(size, size, dtype=torch.bool, device=total.device).triu(1)
    weight = (total.unsqueeze(-2) - total.unsqueeze(-3)).masked_fill(later[..., None], float("-inf")).exp()
    return torch.einsum("x...ik,...ijk->x...ij", left, weight * right.unsqueeze(-3))


def _scan(query: Tensor, key: Tensor, total: Tensor, attention: Tensor, reads: Tensor, writes: Tensor) -> Tensor:
    """From chunk to chunk with the state; ``query`` is decayed from the chunk's beginning."""
    last = total[..., -1:, :]
    kept = (key * (last - total).exp()).transpose(-1, -2)
    forget = last.exp().transpose(-1, -2)
    state = torch.zeros(*key.shape[:2], key.shape[-1], writes.shape[-1], dtype=key.dtype, device=key.device)
    outputs = []
    for chunk in range(key.shape[2]):
        new = writes[:, :, chunk] - reads[:, :, chunk] @ state
        outputs.append(query[:, :, chunk] @ state + attention[:, :, chunk] @ new)
        state = forget[:, :, chunk] * state + kept[:, :, chunk] @ new
    return torch.cat(outputs, dim=2)
