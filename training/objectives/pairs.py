"""A teacher's and a student's distribution over the same outcomes, whether the teacher is dense or sparse.

Of a sparse teacher only k tokens are known. Everything else is one more outcome, the *rest*, so both sides become
distributions over k + 1 outcomes, and a divergence needs one formula. By the data-processing inequality an f-divergence
of these is a lower bound of the one over the vocabulary. The student's rest is exact: 1 - its mass on the k tokens.
The teacher's, r = 1 - sum p, is known at temperature 1 (``missing = "bucket"``), or said to be nothing and its k tokens
renormalised (``"zero"``). At temperature T the teacher's are

    P_i = p_i^(1/T) / (sum_S p^(1/T) + R)        R = r p_k^(1/T - 1)

R is what the rest weighs if its tokens are as likely as the last one stored, p_k. They are no likelier, and x^(1/T) is
concave for T > 1, so this is the tightest lower bound of the true weight (an upper one for T < 1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from ...runtime.errors import ConfigError, TrainingError
from .batch import Dense, Predictions, Sparse

if TYPE_CHECKING:
    from torch import Tensor

FLOOR = -100.0
"""Stands for the log of nothing: its exponential is 0 in float32, and 0 times it is 0, not NaN."""
SMALLEST_REST = 1e-7
"""Mass below which a rest cannot be told from rounding."""

Missing = Literal["bucket", "zero"]


def comparable(chunk: Predictions, temperature: float, missing: Missing = "bucket") -> tuple[Tensor, Tensor]:
    """Log-probabilities at ``temperature`` of the teacher and of the student, (n, m) each, at least FLOOR."""
    targets = targets_alike(chunk)
    if isinstance(targets, Dense):
        return tempered(targets.log_probs, temperature), chunk.log_probs(temperature).clamp(min=FLOOR)
    known = chunk.picked_log_probs(targets.ids, temperature)
    known = known.masked_fill(targets.log_probs == -torch.inf, FLOOR)  # padding
    if targets.is_sample:
        return _sampled(targets, temperature), known.clamp(min=FLOOR)
    return _coarse_teacher(targets, temperature, missing), _with_rest(known)


def targets_of(chunk: Predictions) -> Dense | Sparse:
    if chunk.targets is None:
        raise TrainingError(
            "a term needs a teacher's distributions, and there are none: the recipe's teacher has no logits"
        )
    return chunk.targets


def targets_alike(chunk: Predictions) -> Dense | Sparse:
    """Of a teacher that must have the student's vocabulary."""
    targets = targets_of(chunk)
    if isinstance(targets, Dense) and targets.log_probs.shape != chunk.logits.shape:
        teacher_size, size = targets.log_probs.shape[1], chunk.logits.shape[1]
        what = f"the teacher has {teacher_size} tokens and the student {size}"
        raise TrainingError(f"{what}: a divergence needs one vocabulary; take uld or alm")
    return targets


def exact(chunk: Predictions, label: str) -> None:
    """Refuse a random sample of the teacher, from which only the forward KL divergence is estimated without a bias."""
    if isinstance(chunk.targets, Sparse) and chunk.targets.is_sample:
        raise ConfigError(f"{label} of a sampled logit cache would be biased: take forward_kl, or set sampled to false")


def tempered(log_probs: Tensor, temperature: float) -> Tensor:
    """A dense teacher at ``temperature``."""
    if temperature != 1.0:
        log_probs = (log_probs / temperature).log_softmax(-1)
    return log_probs.clamp(min=FLOOR)


def _sampled(targets: Sparse, temperature: float) -> Tensor:
    if temperature != 1.0:
        raise ConfigError(f"a sampled logit cache is unbiased at temperature 1 only, and a term has {temperature}")
    return targets.log_probs.clamp(min=FLOOR)


def _with_rest(known: Tensor) -> Tensor:
    """The student's log-probabilities of the stored tokens, and of all others as one."""
    rest = (1.0 - known.exp().sum(-1, keepdim=True)).clamp(min=SMALLEST_REST).log()
    return torch.cat([known, rest], dim=1).clamp(min=FLOOR)


def _coarse_teacher(targets: Sparse, temperature: float, missing: Missing) -> Tensor:
    """(n, k + 1) log-probabilities at ``temperature`` of the stored tokens, and of all others as one."""
    known = targets.log_probs
    rest = torch.full_like(known[:, :1], -torch.inf)
    if missing == "bucket":
        last = known.masked_fill(known == -torch.inf, torch.inf).amin(-1, keepdim=True)
        rest = log_rest(targets) + (1.0 / temperature - 1.0) * last
    weights = torch.cat([known / temperature, rest], dim=1)
    return weights.log_softmax(-1).clamp(min=FLOOR)


def log_rest(targets: Sparse) -> Tensor:
    """(n, 1) the log of the mass that the teacher did not store."""
    return (1.0 - targets.log_probs.exp().sum(-1, keepdim=True)).clamp(min=SMALLEST_REST).log()
