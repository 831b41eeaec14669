"""Schedules, by hand."""

import pytest

from tapster.runtime.errors import ConfigError
from tapster.training.objectives.schedules import Schedule, check_schedule, check_together, least, value_at

CE_OF_DANTE = [(200, 0.70), (2000, 1.0)]


@pytest.mark.parametrize(("step", "value"), [(0, 0.70), (200, 0.70), (1100, 0.85), (2000, 1.0), (9999, 1.0)])
def test_points_are_joined_by_lines_and_the_ends_stay(step: int, value: float) -> None:
    assert value_at(CE_OF_DANTE, step) == pytest.approx(value, abs=1e-12)


def test_the_least_value_is_that_of_a_point() -> None:
    assert least(CE_OF_DANTE) == 0.70
    assert least([(0, 1.0), (10, 0.0), (20, 1.0)]) == 0.0
    assert least(2) == 2.0


@pytest.mark.parametrize("step", [0, 137, 1000, 2000])
def test_the_anchor_of_dante_falls_from_one_to_a_tenth(step: int) -> None:
    assert value_at([(0, 1.0), (2000, 0.1)], step) == pytest.approx(1 - 0.9 * step / 2000)


@pytest.mark.parametrize(
    ("schedules", "step"),
    [
        ([[(0, 0.0), (5, 1.0)]], 0),
        ([[(3, 1.0), (5, 0.0), (7, 1.0)], 0.0], 5),
        ([[(0, 1.0), (4, 0.0)], [(6, 0.0), (9, 1.0)]], 4),
        ([[(0, 1.0), (20, 0.0)]], None),  # after the last step
        ([[(0, 0.0), (5, 1.0)], [(0, 1.0), (5, 0.0)]], None),
        ([0.5, 0.0], None),
    ],
)
def test_in_no_step_all_weights_may_be_zero(schedules: list[Schedule], step: int | None) -> None:
    if step is None:
        check_together(schedules, 20)
    else:
        with pytest.raises(ConfigError, match=rf"all weights are 0 at step {step}, which would teach nothing"):
            check_together(schedules, 20)


def test_a_constant_is_itself() -> None:
    assert value_at(0.25, 7) == 0.25
    assert value_at(1, 7) == 1.0


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ([], "at least one point"),
        ([(-1, 0.5)], "begins at step -1"),
        ([(5, 0.5), (5, 0.7)], "from step 5 to step 5"),
        ([(9, 0.5), (3, 0.7)], "from step 9 to step 3"),
        ([(0, 0.5), (101, 0.7)], "step 101 lies past the stage's last step, 100"),
        (float("nan"), "value is nan"),
        ([(0, float("inf"))], "value is inf"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(schedule: float | list[tuple[int, float]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_schedule(schedule, 100)


def test_a_last_point_on_the_last_step_is_fine() -> None:
    check_schedule([(0, 1.0), (100, 0.0)], 100)
    check_schedule([(0, 1.0), (101, 0.0)], None)
