"""Adalite against its formula, written out in float64 numpy, and against values computed by hand."""

import math

import numpy as np
import pytest
import torch

from tapster.training.optim.adalite import Adalite


def slow_adalite(
    weights: np.ndarray, gradients: list[np.ndarray], lr: float, eps: float, pull: float, safe: bool
) -> np.ndarray:
    p, c = weights.astype(np.float64), 0.0
    inner = tuple(range(1, p.ndim)) or None
    for t, g in enumerate(gradients, 1):
        g = g.astype(np.float64)
        if g.size > 1:
            g = g - g.mean(axis=inner, keepdims=True)
        beta = 1 - t**-0.8
        u = (1 - beta) * g**2 + beta * c + eps
        c = u.mean(axis=inner, keepdims=True)
        m = g / np.sqrt(u)
        m = m / max(1.0, math.sqrt((m**2).mean()))
        p_norm, g_norm = np.linalg.norm(p), np.linalg.norm(g)
        if p_norm and g_norm:
            ratio = max(p_norm / max(g_norm, 1e-3), 1e-3) if safe else p_norm / g_norm
            m = m * ratio + pull * (p - p / p_norm)
        p = p - lr * m
    return p


@pytest.mark.parametrize("shape", [(5, 7), (6,), (3, 4, 2), (1,), (1, 4)])
@pytest.mark.parametrize("safe", [True, False])
def test_is_its_formula(shape: tuple[int, ...], safe: bool) -> None:
    random = np.random.default_rng(0)
    weights = random.normal(size=shape).astype(np.float32)
    gradients = [random.normal(size=shape).astype(np.float32) * scale for scale in (1.0, 0.1, 3.0, 1e-5)]
    parameter = torch.nn.Parameter(torch.tensor(weights))
    optimizer = Adalite([parameter], lr=1e-3, eps=1e-5, norm_loss=0.01, safe=safe)
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
    expected = slow_adalite(weights, gradients, 1e-3, 1e-5, 0.01, safe)
    np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-4, 1e-6])
def test_small_gradients_move_a_tensor_by_a_share_of_its_norm_that_falls_with_the_steps(scale: float) -> None:
    random = torch.Generator().manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(200, 200, generator=random))
    optimizer = Adalite([parameter], lr=1e-6, norm_loss=0.0, safe=False)
    kept = 0.0  # of eps: u / eps where gradients are nothing beside it
    for step in range(1, 31):
        before = parameter.detach().clone()
        parameter.grad = torch.randn(200, 200, generator=random) * scale
        optimizer.step()
        kept = (1 - step**-0.8) * kept + 1
        share = float((parameter.detach() - before).norm() / before.norm())
        assert share == pytest.approx(1e-6 / math.sqrt(1e-5 * kept), rel=0.01)
    assert 0.6 < kept / 30**0.8 < 1.0


def test_first_step_by_hand() -> None:
    # Row (1, 3): centred (-1, 1), u = 1 + eps, m = (-1, 1); norms 5 and sqrt(2); pull 0.1 · (p - p / 5)
    parameter = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))
    parameter.grad = torch.tensor([[1.0, 3.0]])
    Adalite([parameter], lr=0.1, eps=0.0, norm_loss=0.1, safe=False).step()
    ratio = 5 / math.sqrt(2)
    expected = [3 - 0.1 * (-ratio + 0.1 * (3 - 0.6)), 4 - 0.1 * (ratio + 0.1 * (4 - 0.8))]
    np.testing.assert_allclose(parameter.detach().numpy()[0], expected, rtol=1e-6)


def test_safe_bounds_the_step_of_a_vanishing_gradient() -> None:
    def moved(safe: bool) -> float:
        parameter = torch.nn.Parameter(torch.ones(4, 4))
        parameter.grad = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)) * 1e-9
        Adalite([parameter], lr=1.0, eps=1e-20, norm_loss=0.0, safe=safe).step()
        return float((parameter.detach() - 1).norm())

    assert moved(safe=True) < 2e4 < 1e8 < moved(safe=False)


def test_the_norm_loss_pulls_to_one() -> None:
    parameter = torch.nn.Parameter(torch.full((2, 8), 3.0))
    optimizer = Adalite([parameter], lr=0.5, norm_loss=0.5)
    random = torch.Generator().manual_seed(0)
    for _ in range(60):
        parameter.grad = torch.randn(2, 8, generator=random) * 1e3  # so large that the trust ratio leaves little of it
        optimizer.step()
    assert float(parameter.detach().norm()) == pytest.approx(1.0, abs=0.01)


def test_bfloat16_weights_go_on_exactly() -> None:
    """Optimizer casts what it loads to the parameter's type; moments stay float32."""

    def step(optimizer: Adalite, parameter: torch.nn.Parameter, seed: int) -> None:
        parameter.grad = torch.randn(8, 5, generator=torch.Generator().manual_seed(seed)).bfloat16()
        optimizer.step()

    parameter = torch.nn.Parameter(torch.randn(8, 5, generator=torch.Generator().manual_seed(9)).bfloat16())
    optimizer = Adalite([parameter], lr=1e-3)
    step(optimizer, parameter, 0)
    copy = torch.nn.Parameter(parameter.detach().clone())
    other = Adalite([copy], lr=1e-3)
    other.load_state_dict(optimizer.state_dict())
    for seed in (1, 2):
        assert torch.equal(other.state[copy]["rows"], optimizer.state[parameter]["rows"])
        assert other.state[copy]["rows"].dtype == torch.float32
        step(optimizer, parameter, seed)
        step(other, copy, seed)
    assert torch.equal(parameter, copy)


def test_state_is_one_number_a_row_and_survives_a_checkpoint() -> None:
    matrix, vector = torch.nn.Parameter(torch.randn(8, 5)), torch.nn.Parameter(torch.randn(6))
    optimizer = Adalite([matrix, vector], lr=1e-3)
    for parameter in (matrix, vector):
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    assert optimizer.state[matrix]["rows"].numel() == 8
    assert optimizer.state[vector]["rows"].numel() == 1
    copies = [torch.nn.Parameter(parameter.detach().clone()) for parameter in (matrix, vector)]
    other = Adalite(copies, lr=1e-3)
    other.load_state_dict(optimizer.state_dict())
    for parameter, copy in zip((matrix, vector), copies, strict=True):
        copy.grad = parameter.grad.clone()  # type: ignore[union-attr]  backward has been
    optimizer.step()
    other.step()
    assert torch.equal(matrix, copies[0])
    assert torch.equal(vector, copies[1])
