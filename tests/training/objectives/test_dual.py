"""The multiplier finds what theory says it must be."""

import pytest

from tapster.training.objectives.dual import Dual


def dual(**more: float) -> Dual:
    options = {"rho": 0.5, "growth": 2.0, "rho_max": 4.0, "patience": 0.9, "multiplier_max": 100.0, "decay": 0.0} | more
    return Dual(**options)


def solve(multiplier: Dual, start: float, least: float) -> float:
    """minimise x^2 subject to x >= least, by gradient steps on x between the dual's."""
    x = start
    for _ in range(200):
        for _ in range(50):
            multiplier.observe(least - x)
            x -= 0.05 * (2 * x - multiplier.coefficient)
        multiplier.update()
    return x


def test_a_convex_problem_ends_at_its_known_multiplier() -> None:
    multiplier = dual()
    assert solve(multiplier, 5.0, 1.0) == pytest.approx(1.0, abs=1e-3)  # lambda* = 2 x* = 2
    assert multiplier.multiplier == pytest.approx(2.0, abs=1e-2)
    assert multiplier.summary()["violation"] < 1e-3


def test_a_constraint_that_does_not_bind_costs_nothing() -> None:
    multiplier = dual()
    assert solve(multiplier, 5.0, -3.0) == pytest.approx(0.0, abs=1e-6)
    assert multiplier.multiplier == multiplier.coefficient == 0.0


def test_steps_by_hand() -> None:
    multiplier = dual(decay=0.5)
    assert multiplier.coefficient == 0.0
    multiplier.observe(2.0)
    assert multiplier.coefficient == 1.0
    multiplier.update()
    assert (multiplier.multiplier, multiplier.rho) == (1.0, 0.5)
    multiplier.observe(1.8)
    assert multiplier.violation == pytest.approx(1.9)
    multiplier.update()  # 1.9 is more than 0.9 x 2: rho grows
    assert (multiplier.multiplier, multiplier.rho) == (pytest.approx(1.95), 1.0)
    multiplier.observe(-20.0)
    multiplier.update()
    assert (multiplier.multiplier, multiplier.rho) == (0.0, 1.0)


def test_both_have_bounds() -> None:
    multiplier = dual(multiplier_max=3.0)
    for _ in range(20):
        multiplier.observe(5.0)
        multiplier.update()
    assert (multiplier.multiplier, multiplier.rho) == (3.0, 4.0)


def test_a_state_that_is_loaded_goes_on_the_same() -> None:
    first, second = dual(decay=0.7), dual(rho=3.0, decay=0.7)
    for g in (0.5, 0.6, -0.2):
        first.observe(g)
        first.update()
    second.load_state_dict(first.state_dict())
    for each in (first, second):
        each.observe(0.9)
        each.update()
    assert first == second
