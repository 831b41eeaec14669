"""Log-probabilities of a few tokens are those of log_softmax and gather, and so are their gradients."""

import pytest
import torch
from objective_cases import draw, predictions

from tapster.training.objectives.picked import picked_log_probs

IDS = torch.tensor([[3, 0, 3], [5, 1, 2], [6, 6, 6], [0, 4, 5]])  # some of them twice


def test_values_and_gradients_are_those_of_the_plain_form() -> None:
    there, here = (draw(4, 7).mul(9).requires_grad_() for _ in range(2))
    weights = draw(4, 3, seed=1)
    wanted, found = there.log_softmax(-1).gather(1, IDS), picked_log_probs(here, IDS)
    assert torch.equal(found, wanted)
    (wanted * weights).sum().backward()
    (found * weights).sum().backward()
    assert there.grad is not None
    assert here.grad is not None
    assert torch.allclose(here.grad, there.grad, atol=1e-6)


def test_gradients_by_finite_differences() -> None:
    logits = draw(4, 7, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: picked_log_probs(z, IDS), logits)


def test_no_second_derivative_is_made_up() -> None:
    logits = draw(4, 7).requires_grad_()
    gradient = torch.autograd.grad(picked_log_probs(logits, IDS).exp().sum(), logits, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_a_chunk_gives_the_same_whether_all_are_wanted_or_few(temperature: float) -> None:
    chunk, other = predictions(draw(4, 7)), predictions(draw(4, 7))
    wanted = other.log_probs(temperature).gather(1, IDS)
    assert torch.allclose(chunk.picked_log_probs(IDS, temperature), wanted)
    assert torch.allclose(other.picked_log_probs(IDS, temperature), wanted)
