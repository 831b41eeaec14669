"""PRO: better answers ranked above worse ones (Song et al., *Preference Ranking Optimization*, arXiv 2306.17492).

With s_i the mean log-probability of an answer's tokens, for each rank r but the last

    l_r = -log( e^{s_r} / (e^{s_r} + mean_{j worse than r} e^{s_j}) )        (the paper: sum)

and the term is the mean over the ranks of a group, then over groups. Of two answers it is -log sigmoid(s_right -
s_wrong): the "ranking loss over length-normalized log-probabilities" of Memphis' card, which says no more; its weight
there, 0.25, and the mean are from its author's training code. The cross-entropy that the card adds is a term of its own
(``rows = "best"``).
"""

from __future__ import annotations

from math import log
from typing import TYPE_CHECKING

import torch

from ...runtime.errors import TrainingError
from .averages import per_sequence
from .options import ProOptions
from .select import with_lengths

if TYPE_CHECKING:
    from torch import Tensor

    from .batch import Forward, GlobalBatch, Rows


def ranking_loss(scores: Tensor, ranks: Tensor, *, average: bool = True, detach_worse: bool = False) -> Tensor:
    """The loss of one group, a scalar: ``scores`` (G,) and ``ranks`` (G,), 0 the best. Equal ranks do not compete."""
    losses = []
    for score, rank in zip(scores, ranks, strict=True):
        worse = scores[ranks > rank]
        if not len(worse):
            continue
        against = torch.logsumexp(worse.detach() if detach_worse else worse, dim=0)
        if average:
            against = against - log(len(worse))
        losses.append(torch.nn.functional.softplus(against - score))
    if not losses:
        raise TrainingError(
            "answers of one group came apart, or all have one rank: keep them in one micro-batch (micro_batch_size)"
        )
    return torch.stack(losses).mean()


class Pro:
    def __init__(self, options: ProOptions, label: str = "pro") -> None:
        self.options = options
        self.label = label

    def row_weights(self, rows: Rows) -> Tensor:
        """The best answers of a group weigh one together, so that the sum counts the groups."""
        is_best, groups = (rows.columns["rank"] == 0).float(), rows.columns["group"]
        num_best = (groups[:, None] == groups).float() @ is_best
        return is_best * per_sequence(rows) / num_best.clamp(min=1.0)

    def from_log_probs(self, log_probs: Tensor, forward: Forward, batch: GlobalBatch) -> Tensor:
        rows = with_lengths(forward.rows, forward.row)
        sums = log_probs.new_zeros(rows.count).index_add(0, forward.row, log_probs)
        scores = sums * per_sequence(rows)
        groups, ranks = rows.columns["group"], rows.columns["rank"]
        options = self.options
        losses = [
            ranking_loss(scores[mine], ranks[mine], average=options.average, detach_worse=options.detach_worse)
            for mine in (groups == group for group in groups.unique())
        ]
        return torch.stack(losses).sum() / max(batch.sums[self.label], 1e-12)
