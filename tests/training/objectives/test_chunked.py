"""Chunked sums equal dense ones, with gradients, in every precision."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from objective_cases import VOCABULARY, draw
from torch import Tensor

from tapster.training.objectives.chunked import chunk_size_for, label_log_probs, weighted_sums

LABELS = torch.arange(11) % VOCABULARY


def values(logits: Tensor, part: slice) -> list[Tensor]:
    log_probs = logits.log_softmax(-1)
    return [-log_probs.gather(1, LABELS[part, None])[:, 0], -(log_probs.exp() * log_probs).sum(-1)]


def inputs(dtype: torch.dtype = torch.float64, num: int = 11) -> tuple[Tensor, Tensor, Tensor]:
    shapes = (num, 8), (VOCABULARY, 8), (VOCABULARY,)
    hidden, head, bias = (draw(*shape, seed=idx).to(dtype).requires_grad_() for idx, shape in enumerate(shapes))
    return hidden, head, bias


def dense(hidden: Tensor, head: Tensor, bias: Tensor, coefficients: Sequence[float]) -> Tensor:
    sums = [value.sum() for value in values(hidden @ head.T + bias, slice(0, len(hidden)))]
    return sums[0] * coefficients[0] + sums[1] * coefficients[1]


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 13), first=st.floats(-2, 2), second=st.floats(-2, 2), upstream=st.sampled_from([1.0, -3.5]))
def test_any_chunk_size_gives_the_dense_value_and_gradients(
    size: int, first: float, second: float, upstream: float
) -> None:
    there, here = inputs(), inputs()
    wanted = dense(*there, (first, second))
    total, sums = weighted_sums(*here, values, (first, second), size)
    assert torch.allclose(total, wanted)
    assert torch.allclose(sums[0] * first + sums[1] * second, wanted)
    (wanted * upstream).backward()
    (total * upstream).backward()
    for ours, theirs in zip(here, there, strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-12)


def test_gradients_by_finite_differences() -> None:
    assert torch.autograd.gradcheck(lambda h, w, b: weighted_sums(h, w, b, values, (0.5, -0.25), 4)[0], inputs())


def test_only_what_wants_a_gradient_gets_one() -> None:
    hidden, head, bias = inputs(torch.float32)
    total, _ = weighted_sums(hidden, head.detach(), bias.detach(), values, (1.0, 0.0), 4)
    total.backward()
    assert hidden.grad is not None
    assert head.grad is None
    quiet, _ = weighted_sums(hidden.detach(), head.detach(), None, values, (1.0, 0.0), 4)
    assert not quiet.requires_grad
    with torch.no_grad():
        assert not weighted_sums(hidden, head, bias, values, (1.0, 0.0), 4)[0].requires_grad


def test_no_predictions_are_a_zero_with_zero_gradients() -> None:
    hidden, head, bias = inputs(num=0)
    total, sums = weighted_sums(hidden, head, bias, values, (1.0, 1.0), 4)
    total.backward()
    assert total.item() == 0.0
    assert sums.tolist() == [0.0, 0.0]
    assert head.grad is not None
    assert head.grad.abs().sum() == 0.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("is_autocast", [False, True])
def test_half_precision_is_near_float32(dtype: torch.dtype, is_autocast: bool) -> None:
    there, here = inputs(torch.float32), inputs(torch.float32 if is_autocast else dtype)
    tiny = 1e-6  # of the order of a coefficient in a large batch, whose gradients float16 would lose
    wanted = dense(*there, (tiny, 0.0))
    wanted.backward()
    with torch.autocast("cpu", dtype, enabled=is_autocast):
        total, _ = weighted_sums(*here, values, (tiny, 0.0), 4)
    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(wanted.item(), rel=0.02)
    (total * 1e6).backward()
    for ours, theirs in zip(here, there, strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert ours.grad.dtype == ours.dtype
        assert (ours.grad.float() - theirs.grad * 1e6).norm() < 0.02 * (theirs.grad * 1e6).norm()


def test_a_second_backward_needs_the_graph_kept_as_everywhere() -> None:
    hidden, head, bias = inputs()
    total, _ = weighted_sums(hidden, head, bias, values, (1.0, 0.0), 4)
    total.backward(retain_graph=True)
    assert hidden.grad is not None
    once = hidden.grad.clone()
    total.backward()
    assert torch.allclose(hidden.grad, 2 * once)
    with pytest.raises(RuntimeError, match="second time"):
        total.backward()


@pytest.mark.parametrize("upstream", [1.0, -2.5])
def test_a_gradient_of_a_kept_graph_may_be_changed(upstream: float) -> None:
    leaves = inputs()
    total, _ = weighted_sums(*leaves, values, (1.0, 0.0), 4)
    wanted = torch.autograd.grad(total * upstream, leaves, retain_graph=True)
    kept = [gradient.clone() for gradient in wanted]
    for gradient in wanted:
        gradient.zero_()
    for ours, theirs in zip(torch.autograd.grad(total * upstream, leaves), kept, strict=True):
        assert torch.equal(ours, theirs)


def test_logits_never_exist_for_more_than_a_chunk() -> None:
    seen: list[int] = []

    def spy(logits: Tensor, part: slice) -> list[Tensor]:
        seen.append(len(logits))
        return values(logits, part)

    weighted_sums(*inputs(), spy, (1.0, 1.0), 4)
    assert seen == [4, 4, 3]


def test_label_log_probs_are_those_of_the_dense_form() -> None:
    hidden, head, bias = inputs(torch.float32)
    found = label_log_probs(hidden, head, bias, LABELS, 3)
    wanted = (hidden @ head.T + bias).log_softmax(-1).gather(1, LABELS[:, None])[:, 0]
    assert torch.allclose(found, wanted, atol=1e-6)
    assert not found.requires_grad


def test_label_log_probs_under_autocast_are_those_of_the_sums() -> None:
    """The joint terms' value comes of the one, its gradient of the other."""
    hidden, head, bias = inputs(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = label_log_probs(hidden, head, bias, LABELS, 4)
        _, sums = weighted_sums(hidden, head, bias, values, (1.0, 0.0), 4)
    assert found.dtype == torch.float32
    assert -found.sum().item() == pytest.approx(sums[0].item(), rel=1e-6)


def test_nothing_goes_backward_through_what_has_no_coefficient() -> None:
    def with_bomb(logits: Tensor, part: slice) -> list[Tensor]:
        first, second = values(logits, part)
        second.register_hook(lambda _: pytest.fail("a backward pass"))
        return [first, second]

    there, here = inputs(), inputs()
    weighted_sums(*there, lambda logits, part: values(logits, part)[:1], (0.5,), 4)[0].backward()
    total, sums = weighted_sums(*here, with_bomb, (0.5, 0.0), 4)
    total.backward()
    assert sums[1] > 0
    for ours, theirs in zip(here, there, strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert torch.equal(ours.grad, theirs.grad)


def test_the_chunk_size_follows_the_vocabulary() -> None:
    cpu = torch.device("cpu")
    assert chunk_size_for(49152, cpu) * 49152 * 4 <= 32 << 20
    assert chunk_size_for(10_000_000, cpu) == 16
    assert chunk_size_for(49152, torch.device("meta")) > chunk_size_for(49152, cpu)


def test_gradients_become_those_of_the_leaves_without_a_copy() -> None:
    """That of the head is as large as the head, and would exist twice while all activations still do."""
    hidden, head, bias = inputs()
    total, _ = weighted_sums(hidden, head, bias, values, (1.0, 0.0), 4)
    made: list[Tensor] = [*total.grad_fn.gradients]  # type: ignore[union-attr]  our own function
    places = [gradient.data_ptr() for gradient in made]
    del made
    (total * 3.0).backward()
    given = [leaf.grad for leaf in (hidden, head, bias)]
    assert [gradient.data_ptr() for gradient in given if gradient is not None] == places
