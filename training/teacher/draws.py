"""An unbiased sample of a distribution over tokens, in k weighted entries.

The top k of a distribution, taken for the whole, teach a student to be too sure; a random sample whose expected weights
are the true probabilities does not ("Sparse Logit Sampling", arXiv 2503.16870). Drawing with replacement gives few
different tokens. Here every token keeps its own probability if that is at least a threshold t, and stands with
probability p / t for t otherwise: the form of the least variance for k entries (VarOpt, Cohen et al., arXiv
0803.0473). With t such that L + sum of the others / t = k, for L tokens above it, exactly k entries come out, and
their weights sum to one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_LEAST = -30.0


def draw(probs: Tensor, count: int, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Sample each row of ``probs`` (n, V), with V > ``count``; ``uniform`` (n,) are numbers in [0, 1).

    Returns ids (n, count) int64 and log weights (n, count) float32. E[weight of a token] is its probability. Entries of
    one row may in rare cases of rounding name the same token; weights of a token add up. Those below exp(-30) are -inf.
    """
    import torch

    probs = probs.double()
    probs = probs / probs.sum(dim=1, keepdim=True)
    top, top_ids = probs.topk(count, dim=1)
    num_kept, threshold = _threshold(top, count)
    rank = torch.arange(count, device=probs.device)
    is_kept = rank < num_kept[:, None]
    rest = probs.scatter(1, top_ids, torch.where(is_kept, 0.0, top))
    reach = rest.cumsum(dim=1)
    slots = (count - num_kept)[:, None]
    # one of the evenly spaced points of each row falls on a token with probability p / t
    points = (rank - num_kept[:, None] + uniform.double()[:, None]) / slots.clamp(min=1) * reach[:, -1:]
    drawn = torch.searchsorted(reach, points.clamp(min=0.0), right=True).clamp(max=probs.shape[1] - 1)
    ids = torch.where(is_kept, top_ids, drawn)
    weights = torch.where(is_kept, top, threshold[:, None])
    logs = (weights / weights.sum(dim=1, keepdim=True)).log()
    return ids, torch.where(logs > _LEAST, logs, -torch.inf).float()


def _threshold(top: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """How many tokens keep their own probability, and t: from the ``count`` largest probabilities in descending order.

    The fewest L for which the next probability is at most (1 - sum of the first L) / (count - L).
    """
    import torch

    before = torch.cat([torch.zeros_like(top[:, :1]), top.cumsum(dim=1)[:, :-1]], dim=1)
    slots = count - torch.arange(count, device=top.device)
    shares = (1.0 - before).clamp(min=0.0) / slots
    is_enough = top <= shares * (1 + 1e-12)
    is_enough[:, -1] = True
    num_kept = is_enough.int().argmax(dim=1)
    return num_kept, shares.gather(1, num_kept[:, None])[:, 0].clamp(min=1e-300)
