"""The random sample of a distribution: unbiased, of a fixed size, and better than drawing with replacement."""

import numpy as np
import pytest
import torch

from tapster.training.teacher.draws import draw


def estimates(probs: torch.Tensor, count: int, repeats: int) -> torch.Tensor:
    """(repeats, V) the weights that each token gets."""
    ids, logs = draw(probs.expand(repeats, -1), count, torch.rand(repeats, generator=torch.Generator().manual_seed(1)))
    assert torch.allclose(logs.exp().sum(1), torch.ones(repeats), atol=1e-5)
    return torch.zeros(repeats, probs.shape[-1]).scatter_add_(1, ids, logs.exp())


def test_the_mean_of_the_weights_is_the_distribution() -> None:
    for spread in (0.0, 1.0, 3.0):
        probs = torch.softmax(spread * torch.randn(1, 40, generator=torch.Generator().manual_seed(0)), 1)
        found = estimates(probs, 8, 40_000)
        error = found.std(0) / 200  # the standard error of the mean
        assert ((found.mean(0) - probs[0]).abs() <= 5 * error + 1e-6).all()
        top = probs[0].topk(8)
        cut = torch.zeros(40).scatter(0, top.indices, top.values / top.values.sum())
        if spread < 2:
            assert ((cut - probs[0]).abs() > 5 * error + 1e-6).any()  # which the renormalised top k is not


def test_it_varies_as_little_as_any_sample_of_its_size() -> None:
    """The sum of the variances is sum p (t - p) over the tokens below the threshold t (Cohen et al., 2.2)."""
    count = 16
    probs = torch.softmax(2.0 * torch.randn(1, 200, generator=torch.Generator().manual_seed(3)), 1)
    ascending = probs[0].double().sort().values
    threshold = next(
        float(rest.sum() / (count - kept))
        for kept in range(count)
        if (rest := ascending[: len(ascending) - kept])[-1] <= rest.sum() / (count - kept)
    )
    rest = ascending[ascending < threshold]
    least = float((rest * (threshold - rest)).sum())
    found = estimates(probs, count, 20_000)
    assert float((found - probs).square().sum(1).mean()) == pytest.approx(least, rel=0.02)
    assert least < 0.31 * float((probs * (1 - probs)).sum() / count)  # of drawing with replacement


def test_certain_and_even_distributions() -> None:
    certain = torch.zeros(1, 30)
    certain[0, 7] = 1.0
    ids, logs = draw(certain, 4, torch.tensor([0.3]))
    assert ids[0, 0] == 7
    assert logs[0, 0] == 0
    assert torch.isinf(logs[0, 1:]).all()
    ids, logs = draw(torch.full((1, 30), 1 / 30), 4, torch.tensor([0.3]))
    assert len(set(ids[0].tolist())) == 4
    assert np.allclose(logs.exp(), 0.25)
