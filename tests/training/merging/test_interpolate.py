"""SLERP and lerp by hand, and against float64."""

import math
from collections.abc import Callable

import pytest
import torch

from tapster.training.merging.interpolate import lerp, slerp


def test_halfway_between_two_axes() -> None:
    merged = slerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 0.5)
    assert merged.tolist() == pytest.approx([math.sqrt(0.5)] * 2)


def test_a_third_of_the_way() -> None:
    merged = slerp(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 1 / 3)
    assert merged.flatten().tolist() == pytest.approx([math.cos(math.pi / 6), 0.5])


def test_lengths_go_with_their_vectors() -> None:
    merged = slerp(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 4.0]), 0.5)
    assert merged.tolist() == pytest.approx([2 * math.sqrt(0.5), 4 * math.sqrt(0.5)])


def test_line() -> None:
    assert lerp(torch.tensor([0.0, 2.0]), torch.tensor([4.0, 4.0]), 0.25).tolist() == [1.0, 2.5]


@pytest.mark.parametrize("merge", [slerp, lerp])
def test_the_ends_are_the_tensors(merge: Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]) -> None:
    a, b = torch.randn(2, 5, 7)
    torch.testing.assert_close(merge(a, b, 0.0), a)
    torch.testing.assert_close(merge(a, b, 1.0), b)


@pytest.mark.parametrize("weight", [0.01, 0.5, 0.99])
def test_slerp_is_the_formula(weight: float) -> None:
    a, b = torch.randn(2, 30, 20)
    x, y = a.double().flatten(), b.double().flatten()
    angle = math.acos(x @ y / x.norm() / y.norm())
    expected = (math.sin((1 - weight) * angle) * x + math.sin(weight * angle) * y) / math.sin(angle)
    torch.testing.assert_close(slerp(a, b, weight).double().flatten(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("second", [[1.0, 1e-4], [-1.0, 0.0], [0.0, 0.0]])
def test_parallel_opposite_and_zero_go_along_the_line(second: list[float]) -> None:
    a, b = torch.tensor([1.0, 0.0]), torch.tensor(second)
    assert torch.equal(slerp(a, b, 0.75), lerp(a, b, 0.75))


def test_arithmetic_is_float32_and_the_wider_dtype_stays() -> None:
    a, b = torch.randn(2, 64).bfloat16()
    expected = slerp(a.float(), b.float(), 0.3)
    assert torch.equal(slerp(a, b, 0.3), expected.bfloat16())
    assert torch.equal(slerp(a, b.float(), 0.3), expected)
