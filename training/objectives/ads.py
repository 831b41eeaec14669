"""ADS: entropy bounded at difficult points, by a multiplier that learns (the card of Kai-3B-Instruct).

The card calls it "a dynamic loss function with a stateful dual penalty factor that adapts based on embedding space
entropy", which forces "high-confidence predictions at difficult reasoning points", and gives no formula. Our reading is
constrained learning (Chamon and Ribeiro, arXiv 2006.05487) by an augmented Lagrangian:

    minimise F (the other terms)  subject to  g = E[m c H] / E[m c] - eps <= 0

* H_t: entropy of softmax(<h_t, e_v> / tau), h the last hidden state and e the output embedding: the student's entropy.
* m_t = sigmoid((R_t - kappa) / s), how difficult t is: R the entropy of the frozen reference, kappa a running mean of
  its q-quantile. The quantile is read off a histogram, whose counts add up over micro-batches and processes.
* c_t = 1 where the label is among the student's k likeliest tokens: a wrong prediction is never made more certain.
* eps goes from the entropy measured at the beginning, H_0, to r H_0.

The term is ``coefficient * g``, whose gradient is the penalty's (see ``dual``), with the coefficient and E[m c] from
running means over the steps before: so it is a plain sum over predictions, the same however a batch is divided. That
E[m c] counts as at least a tenth of 1 - q, the share that m alone would leave: where c lets more through than in the
steps before, the penalty would else be hundreds of times too strong. The first step finds kappa, the second H_0; until
then, and whenever the constraint holds with a multiplier of zero, it is zero.
With ``max_kl``, E KL(teacher || student) <= max_kl is a second constraint with a multiplier of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from .dual import Dual
from .entropy import entropy_of, entropy_of_targets
from .forward_kl import kl
from .options import AdsOptions
from .pairs import comparable, exact, targets_of

if TYPE_CHECKING:
    from torch import Tensor

    from .batch import GlobalBatch, Predictions

BINS = 128
HIGHEST = 12.8
"""Nats; the entropy of a uniform distribution over 360,000 tokens."""
_BIN = "reference_bin_{}"
_ENTROPY = "entropy_bin_{}"
"""The student's entropies, summed by the bin of the reference's."""
_LEAST_OPEN = 0.1
"""Of the difficult predictions, the share that is thought to pass the gate at least."""
_TOTALS = ("both", "both_entropy", "predictions", "drift")


class Ads:
    def __init__(self, options: AdsOptions, label: str = "ads") -> None:
        self.options = options
        self.label = label
        self._entropy = _dual(options)
        self._drift = _dual(options) if options.max_kl is not None else None
        self._steps = 0
        self._bounded_steps = 0
        """Steps since H_0 is known."""
        self._threshold: float | None = None
        """kappa."""
        self._share: float | None = None
        """The running mean of m c."""
        self._first: float | None = None
        """H_0."""
        self._sums: defaultdict[str, float] = defaultdict(float)

    @property
    def bound(self) -> float | None:
        """eps now; None before H_0 is known."""
        if self._first is None:
            return None
        progress = min(self._bounded_steps / (self.options.anneal_steps or 1000), 1.0)
        return self._first * (1.0 + (self.options.target_ratio - 1.0) * progress)

    def normalizer(self, batch: GlobalBatch) -> float:
        return float(batch.predictions)

    def per_prediction(self, chunk: Predictions) -> Tensor:
        pressure = self._entropy.coefficient
        with torch.set_grad_enabled(torch.is_grad_enabled() and pressure > 0.0):
            entropy = entropy_of(chunk.log_probs(self.options.temperature) if pressure > 0.0 else self._quiet(chunk))
        mask, gate = self._difficulty(chunk, entropy)
        drift = None if self._drift is None else self._divergence(chunk)
        if chunk.is_counted:
            self._count(entropy.detach(), mask * gate, None if drift is None else drift.detach())
        above = entropy - (self.bound or 0.0)
        value = above * mask * gate * (pressure / self._divisor if self._share else 0.0)
        return value if self._drift is None or drift is None else value + drift * self._drift.coefficient

    @property
    def _divisor(self) -> float:
        """E[m c], not so little that a single prediction would bear the whole penalty."""
        return max(self._share or 0.0, _LEAST_OPEN * (1.0 - self.options.quantile))

    def _quiet(self, chunk: Predictions) -> Tensor:
        return (chunk.logits.detach() / self.options.temperature).log_softmax(-1)

    def _divergence(self, chunk: Predictions) -> Tensor:
        teacher, student = comparable(chunk, 1.0)
        return kl(teacher, student)

    @torch.no_grad()
    def _difficulty(self, chunk: Predictions, entropy: Tensor) -> tuple[Tensor, Tensor]:
        """m and c, (n,) each; the reference's entropies go into the histogram."""
        options = self.options
        reference = self._reference(chunk, entropy)
        if chunk.is_counted:
            bins = ((reference / HIGHEST).clamp(0.0, 1.0).sqrt() * BINS).long().clamp(max=BINS - 1)
            counts = torch.bincount(bins, minlength=BINS).tolist()
            sums = torch.bincount(bins, weights=entropy.detach().double(), minlength=BINS).tolist()
            self._add({_BIN.format(idx): count for idx, count in enumerate(counts)})
            self._add({_ENTROPY.format(idx): total for idx, total in enumerate(sums)})
        gate = torch.ones_like(entropy)
        if options.correct_top_k:
            own = chunk.logits.gather(1, chunk.labels[:, None])
            gate = ((chunk.logits > own).sum(-1) < options.correct_top_k).to(entropy.dtype)
        if self._threshold is None:
            return torch.zeros_like(entropy), gate
        return torch.sigmoid((reference - self._threshold) / options.sharpness).to(entropy.dtype), gate

    def _reference(self, chunk: Predictions, entropy: Tensor) -> Tensor:
        """R, (n,)."""
        if self.options.reference == "self":
            return entropy.detach()
        exact(chunk, self.label)
        return entropy_of_targets(targets_of(chunk))

    def _count(self, entropy: Tensor, both: Tensor, drift: Tensor | None) -> None:
        parts = [both, both * entropy, torch.ones_like(both), torch.zeros_like(both) if drift is None else drift]
        sums = torch.stack([part.double().sum() for part in parts]).tolist()
        self._add(dict(zip(_TOTALS, sums, strict=True)))

    def _add(self, sums: Mapping[str, float]) -> None:
        for name, value in sums.items():
            self._sums[name] += value

    def statistics(self) -> dict[str, float]:
        names = [name.format(idx) for name in (_BIN, _ENTROPY) for idx in range(BINS)] + list(_TOTALS)
        sums = {name: float(self._sums[name]) for name in names}
        self._sums.clear()
        return sums

    def summary(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Mean entropies of the student: at difficult predictions, at those of them that are bounded, and at easy ones.

        What is difficult is asked of these very predictions, bin by bin, so that evaluations of the same rows mask the
        same tokens, also before the first step and in a run that this term only watches.
        """
        values = self._by_difficulty(sums)
        if sums["both"] > 0:
            values["entropy_bounded"] = sums["both_entropy"] / sums["both"]
        if self._drift is not None and sums["predictions"]:
            values["kl"] = sums["drift"] / sums["predictions"]
        return values

    def _by_difficulty(self, sums: Mapping[str, float]) -> dict[str, float]:
        counts, totals = ([sums[name.format(idx)] for idx in range(BINS)] for name in (_BIN, _ENTROPY))
        threshold, width = quantile(counts, self.options.quantile), self.options.sharpness
        middles = torch.tensor([((idx + 0.5) / BINS) ** 2 * HIGHEST for idx in range(BINS)], dtype=torch.float64)
        hard = torch.sigmoid((middles - threshold) / width).tolist()
        values = {}
        for name, shares in (("hard", hard), ("easy", [1.0 - share for share in hard])):
            if count := sum(share * number for share, number in zip(shares, counts, strict=True)):
                values[f"entropy_{name}"] = sum(s * total for s, total in zip(shares, totals, strict=True)) / count
        return values

    def after_step(self, step: int, sums: Mapping[str, float]) -> dict[str, float]:
        if not sums["predictions"]:
            return {}
        options, knew_threshold = self.options, self._threshold is not None
        found = quantile([sums[_BIN.format(idx)] for idx in range(BINS)], options.quantile)
        self._threshold = self._mean(self._threshold, found)
        if knew_threshold:
            self._learn(sums)
        if self._drift is not None and options.max_kl is not None:
            self._drift.observe(sums["drift"] / sums["predictions"] - options.max_kl)
        self._steps += 1
        if self._steps % options.dual_every == 0:
            for dual in filter(None, (self._entropy, self._drift)):
                dual.update()
        return self.summary(sums) | self._report()

    def _learn(self, sums: Mapping[str, float]) -> None:
        self._share = self._mean(self._share, sums["both"] / sums["predictions"])
        if sums["both"] <= 0:
            return
        entropy = sums["both_entropy"] / sums["both"]
        if self._first is None:
            self._first = entropy
        assert self.bound is not None
        self._entropy.observe(entropy - self.bound)
        self._bounded_steps += 1

    def _mean(self, mean: float | None, value: float) -> float:
        return value if mean is None else self.options.decay * mean + (1.0 - self.options.decay) * value

    def _report(self) -> dict[str, float]:
        values = self._entropy.summary() | {"threshold": self._threshold or 0.0, "share": self._share or 0.0}
        if self.bound is not None:
            values["bound"] = self.bound
        if self._drift is not None:
            values |= {f"kl_{name}": value for name, value in self._drift.summary().items()}
        return values

    def state_dict(self) -> dict[str, Any]:
        return {
            "steps": self._steps,
            "bounded_steps": self._bounded_steps,
            "threshold": self._threshold,
            "share": self._share,
            "first": self._first,
            "entropy": self._entropy.state_dict(),
            "drift": None if self._drift is None else self._drift.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._steps, self._bounded_steps = state["steps"], state["bounded_steps"]
        self._threshold = state["threshold"]
        self._share, self._first = state["share"], state["first"]
        self._entropy.load_state_dict(state["entropy"])
        if self._drift is not None and state["drift"] is not None:
            self._drift.load_state_dict(state["drift"])
        self._sums.clear()


def quantile(counts: list[float], share: float) -> float:
    """The entropy below which ``share`` of the histogram lies, by straight lines within a bin."""
    wanted, below = share * sum(counts), 0.0
    for idx, count in enumerate(counts):
        if count and below + count >= wanted:
            return ((idx + (wanted - below) / count) / BINS) ** 2 * HIGHEST
        below += count
    return HIGHEST


def _dual(options: AdsOptions) -> Dual:
    return Dual(
        rho=options.rho,
        growth=options.rho_growth,
        rho_max=options.rho_max,
        patience=options.patience,
        multiplier_max=options.lambda_max,
        decay=options.decay,
    )
