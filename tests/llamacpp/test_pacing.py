"""Prompt chunks sized by time."""

from tapster.runtime.engines.local.pacing import GAP_FACTOR, Pacer


def taught(decode_s: float = 0.04, token_s: float = 0.005) -> Pacer:
    pacer = Pacer()
    pacer.observe(4, 0, decode_s)
    pacer.observe(0, 200, 200 * token_s)
    return pacer


def test_a_step_without_streams_is_filled() -> None:
    assert taught().prefill_budget(0, 1, 512) == 512


def test_a_step_with_streams_takes_as_long_as_it_may() -> None:
    assert taught().prefill_budget(4, 1, 512) == int(0.04 * (GAP_FACTOR - 1) / 0.005)


def test_many_that_wait_outweigh_one_that_runs() -> None:
    pacer = taught()
    assert pacer.prefill_budget(1, 7, 512) == 7 * int(0.04 * (GAP_FACTOR - 1) / 0.005)


def test_something_always_moves() -> None:
    assert taught(decode_s=0.001, token_s=1).prefill_budget(4, 1, 512) >= 1


def test_learns_from_mixed_steps() -> None:
    pacer = taught()
    for _ in range(30):
        pacer.observe(4, 16, 0.04 + 16 * 0.01)
    assert 8 <= pacer.prefill_budget(4, 1, 512) <= 11
