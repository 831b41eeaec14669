"""How unsure a teacher was of an answer, from what its server reports: entropy in nats, per token.

Of each token's distribution a server tells the k largest probabilities. With r = 1 - sum(p) the rest, the entropy of
the whole distribution over V tokens lies between

    -sum(p log p) - r log r   and   -sum(p log p) - r log r + r log(V - k)

where all of the rest is on one token, and where it is spread evenly. ``output_entropy`` is the mean of the lower bound
over the tokens of the answer, ``output_entropy_upper`` that of the upper, where V is known.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

UNIT = "nats"


def token_entropy(log_probs: Sequence[float], vocab_size: int | None = None) -> tuple[float, float | None]:
    """Lower and upper bound from a distribution's largest log-probabilities."""
    known = [(math.exp(log_prob), log_prob) for log_prob in log_probs if log_prob > -745.0]  # below, exp gives 0
    entropy = -sum(prob * log_prob for prob, log_prob in known)
    rest = 1.0 - math.fsum(prob for prob, _ in known)
    if rest <= 1e-12:
        return max(entropy, 0.0), None if vocab_size is None else max(entropy, 0.0)
    lower = entropy - rest * math.log(rest)
    if vocab_size is None:
        return lower, None
    return lower, lower + rest * math.log(max(1, vocab_size - len(known)))


def entropy_of(
    tokens: Sequence[Mapping[str, Any]] | None, *, temperature: float, vocab_size: int | None = None
) -> dict[str, Any] | None:
    """What a record says of the entropy of an answer, from ``choices[].logprobs.content``; None where it says nothing.

    The ``entropy_estimator`` is ``top-k``; or, where only the chosen tokens' log-probabilities are known, their mean
    with the sign turned: ``sampled`` at temperature 1, where that is unbiased, else ``surprisal``, which is not an
    entropy but orders answers in a similar way.
    """
    if not tokens:
        return None
    top = [entry["top_logprobs"] for entry in tokens if entry.get("top_logprobs")]
    if len(top) == len(tokens):
        bounds = [token_entropy([_finite(other) for other in entries], vocab_size) for entries in top]
        uppers = [upper for _, upper in bounds if upper is not None]
        return {
            "output_entropy": math.fsum(lower for lower, _ in bounds) / len(bounds),
            "output_entropy_upper": math.fsum(uppers) / len(uppers) if uppers else None,
            "entropy_estimator": "top-k",
            "entropy_unit": UNIT,
            "top_k": max(map(len, top)),
        }
    surprisal = -math.fsum(_finite(entry) for entry in tokens) / len(tokens)
    return {
        "output_entropy": max(surprisal, 0.0),
        "output_entropy_upper": None,
        "entropy_estimator": "sampled" if temperature == 1.0 else "surprisal",
        "entropy_unit": UNIT,
        "top_k": 0,
    }


def answer_entropy(answers: Sequence[str]) -> dict[str, Any]:
    """The entropy over different answers to one question: what is left where a server reports no probabilities."""
    counts = Counter(answers).values()
    return {
        "output_entropy": -math.fsum(count / len(answers) * math.log(count / len(answers)) for count in counts) + 0.0,
        "output_entropy_upper": None,
        "entropy_estimator": "answers",
        "entropy_unit": UNIT,
        "top_k": 0,
    }


def _finite(entry: Mapping[str, Any]) -> float:
    """The log-probability of a token; servers write -9999 for a probability of zero."""
    value = float(entry["logprob"])
    if not math.isfinite(value) or value > 1e-3:
        raise ValueError(f"{value} is no log-probability")
    return min(value, 0.0)
