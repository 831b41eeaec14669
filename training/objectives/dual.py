"""A multiplier that learns: the dual side of an augmented Lagrangian for one constraint ``g <= 0``.

    L_rho(x, lambda) = F(x) + ([lambda + rho g(x)]+ ^2 - lambda^2) / (2 rho)

Its gradient is that of ``F + c g`` with ``c = [lambda + rho g]+``, so a loss only has to multiply ``g`` by
``coefficient``. Now and then ``lambda <- [lambda + rho g]+``, and ``rho`` grows where the violation did not fall enough
(Bertsekas, *Constrained Optimization and Lagrange Multiplier Methods*, 1982, chapter 2). ``g`` is a running mean, for
batches are noisy.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(slots=True)
class Dual:
    """One constraint's multiplier. Without torch; the same on every process, given the same observations."""

    rho: float
    growth: float
    rho_max: float
    patience: float
    multiplier_max: float
    decay: float
    multiplier: float = 0.0
    violation: float | None = None
    """The running mean of g; None before the first observation."""
    violation_before: float | None = None
    """[g]+ at the last update."""

    @property
    def coefficient(self) -> float:
        """[lambda + rho g]+, at most ``multiplier_max``: what the constraint's gradient is multiplied by."""
        if self.violation is None:
            return 0.0
        return min(max(self.multiplier + self.rho * self.violation, 0.0), self.multiplier_max)

    def observe(self, g: float) -> None:
        """Take the constraint's value in a step into the running mean."""
        self.violation = g if self.violation is None else self.decay * self.violation + (1.0 - self.decay) * g

    def update(self) -> None:
        """A step of the dual ascent."""
        if self.violation is None:
            return
        self.multiplier = self.coefficient
        positive = max(self.violation, 0.0)
        if self.violation_before is not None and positive > self.patience * self.violation_before:
            self.rho = min(self.rho * self.growth, self.rho_max)
        self.violation_before = positive

    def summary(self) -> dict[str, float]:
        """The multiplier and how far the Karush-Kuhn-Tucker conditions are from holding."""
        violation = self.violation or 0.0
        return {
            "lambda": self.multiplier,
            "rho": self.rho,
            "coefficient": self.coefficient,
            "violation": max(violation, 0.0),
            "slackness": abs(self.multiplier * violation),
        }

    def state_dict(self) -> dict[str, Any]:
        return {item.name: getattr(self, item.name) for item in fields(self)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for item in fields(self):
            setattr(self, item.name, state[item.name])
