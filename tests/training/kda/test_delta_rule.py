"""The chunked recurrence against the recurrence itself, token by token in float64."""

import pytest
import torch
from torch import Tensor

from tapster.training.kda.delta_rule import CHUNK, delta_rule


def reference(query: Tensor, key: Tensor, value: Tensor, log_decay: Tensor, beta: Tensor) -> Tensor:
    state = torch.zeros(*key.shape[:2], key.shape[-1], value.shape[-1], dtype=torch.float64)
    outputs = []
    for t in range(key.shape[2]):
        state = log_decay[:, :, t].exp().unsqueeze(-1) * state
        error = value[:, :, t] - (state * key[:, :, t].unsqueeze(-1)).sum(-2)
        state = state + (beta[:, :, t, None] * key[:, :, t]).unsqueeze(-1) * error.unsqueeze(-2)
        outputs.append((state * query[:, :, t].unsqueeze(-1)).sum(-2))
    return torch.stack(outputs, dim=2)


def inputs(length: int, strength: float = 0.3, width: int = 8) -> list[Tensor]:
    torch.manual_seed(length)
    query, key, value = (torch.randn(2, 3, length, width, dtype=torch.float64) for _ in range(3))
    decay = -strength * torch.rand(2, 3, length, width, dtype=torch.float64)
    key = torch.nn.functional.normalize(key, dim=-1)
    return [query, key, value, decay, torch.rand(2, 3, length, dtype=torch.float64)]


def test_one_token_by_hand() -> None:
    one = torch.ones(1, 1, 1, 1)
    output = delta_rule(2 * one, one, 3 * one, -one, 0.5 * one[..., 0])
    assert output.item() == pytest.approx(3.0)  # S = 0.5·1·3, o = 2·S


def test_two_tokens_by_hand() -> None:
    pair = torch.ones(1, 1, 2, 1)
    half = torch.full((1, 1, 2, 1), 0.5)
    output = delta_rule(pair, pair, torch.tensor([4.0, 8.0]).view(1, 1, 2, 1), half.log(), half[..., 0])
    assert output.flatten().tolist() == pytest.approx([2.0, 4.5])  # S₁ = 2; S₂ = 1 + 0.5·(8 − 1)


@pytest.mark.parametrize("length", [1, 7, 8, 9, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_chunks_are_the_recurrence(length: int) -> None:
    parts = inputs(length)
    expected = reference(*parts)
    torch.testing.assert_close(delta_rule(*parts), expected, rtol=1e-10, atol=1e-12)
    single = delta_rule(*(part.float() for part in parts)).double()
    torch.testing.assert_close(single, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strength", [0.0, 30.0, 2000.0])
def test_gates_that_keep_all_or_nothing_are_finite(strength: float) -> None:
    parts = [part.float().requires_grad_() for part in inputs(2 * CHUNK + 3, strength)]
    output = delta_rule(*parts)
    torch.testing.assert_close(output.double(), reference(*(part.double() for part in parts)), rtol=1e-3, atol=1e-4)
    output.square().sum().backward()
    assert all(part.grad is not None and part.grad.isfinite().all() for part in parts)


def test_gradients_are_finite_differences() -> None:
    parts = [part[:1, :1].clone().requires_grad_() for part in inputs(CHUNK + 5, width=2)]
    assert torch.autograd.gradcheck(delta_rule, parts, fast_mode=True)


def test_no_token_sees_a_later_one() -> None:
    parts = inputs(2 * CHUNK)
    before = delta_rule(*parts)
    for part in parts:
        part[:, :, CHUNK + 4 :] *= 0.5
    after = delta_rule(*parts)
    torch.testing.assert_close(after[:, :, : CHUNK + 4], before[:, :, : CHUNK + 4])
    assert not torch.allclose(after[:, :, CHUNK + 4 :], before[:, :, CHUNK + 4 :])
