"""ALM: approximate likelihood matching, for teachers with another tokenizer (Minixhofer et al., arXiv 2503.20083).

Both models give a likelihood to any stretch of text that both tokenizers cover with whole tokens (see ``alignment``):
l_T and l_S, the sums of the log-probabilities of its tokens. As the probability of "this stretch, or anything else", at
temperature tau,

    a = e^(l_T / tau)    b = e^(l_S / tau)    L = -[a log b + (1 - a) log(1 - b)]

less the entropy of a, which has no gradient and makes the term a KL divergence that is zero where both agree. Times
tau, since its gradient falls by one tau (the other tau cancels against 1 - b). The sum over stretches is divided by the
number of predictions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...runtime.errors import TrainingError
from .options import AlmOptions

if TYPE_CHECKING:
    from torch import Tensor

    from .batch import Forward, GlobalBatch

CERTAIN = -1e-6
"""The largest log-likelihood that is told from certainty: the log of 1 - b must stay finite."""


def binary_kl(student: Tensor, teacher: Tensor, temperature: float = 100.0) -> Tensor:
    """(S,) from the log-likelihoods of stretches, (S,) each; without the factor tau."""
    log_a, log_b = (side.clamp(max=CERTAIN) / temperature for side in (teacher, student))
    a = log_a.exp()
    return a * (log_a - log_b) + (1.0 - a) * ((-log_a.expm1()).log() - (-log_b.expm1()).log())


@dataclass(frozen=True)
class Alm:
    options: AlmOptions
    label: str = "alm"

    def from_log_probs(self, log_probs: Tensor, forward: Forward, batch: GlobalBatch) -> Tensor:
        if (spans := forward.spans) is None:
            raise TrainingError(f"{self.label} needs a teacher's log-probabilities of the text, and there are none")
        counts = spans.of_prediction >= 0
        ours = log_probs.new_zeros(len(spans.teacher_log_probs))
        ours = ours.index_add(0, spans.of_prediction[counts], log_probs[counts])
        temperature = self.options.temperature
        return temperature * binary_kl(ours, spans.teacher_log_probs, temperature).sum() / max(batch.predictions, 1)
