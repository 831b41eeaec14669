"""ADS on a toy: entropy falls where the reference finds it difficult, and only there."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from objective_cases import FromWhole, assembly_of, whole_batch
from torch import Tensor

from tapster.training.objectives.ads import BINS, HIGHEST, quantile
from tapster.training.objectives.assembly import Assembly
from tapster.training.objectives.batch import Dense, Forward, Rows

NUM, SIZE = 40, 12
ROW = torch.zeros(NUM, dtype=torch.long)


def reference_logits() -> Tensor:
    """Thirty easy predictions and ten difficult ones; the label is the likeliest token of each."""
    logits = torch.randn(NUM, SIZE, generator=torch.Generator().manual_seed(0)) * 0.3
    logits[:30, 0] += 6.0
    logits[30:, 0] += 2.0
    return logits


def forward_of(logits: Tensor) -> Forward:
    """A student whose hidden states are its logits."""
    labels = torch.zeros(NUM, dtype=torch.long)
    return Forward(
        hidden=logits,
        head=torch.eye(SIZE),
        labels=labels,
        row=ROW,
        position=torch.arange(NUM),
        rows=Rows(1),
        step=0,
        targets=FromWhole(Dense(reference_logits().log_softmax(-1))),
    )


def train(assembly: Assembly, steps: int, logits: Tensor | None = None) -> tuple[Tensor, list[dict[str, float]]]:
    logits = reference_logits().requires_grad_() if logits is None else logits
    log = []
    for step in range(steps):
        forward = replace(forward_of(logits), step=step)
        total = assembly.loss(forward, whole_batch(assembly, forward)).total
        (gradient,) = torch.autograd.grad(total, logits)
        with torch.no_grad():
            logits -= 2.0 * gradient
        log.append(assembly.after_step(step, assembly.statistics()))
    return logits, log


def entropy(logits: Tensor) -> Tensor:
    return -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1).detach()


ADS: dict[str, Any] = {
    "term": "ads",
    "quantile": 0.77,
    "sharpness": 0.02,
    "rho": 1.0,
    "dual_every": 5,
    "anneal_steps": 40,
}


def test_entropy_falls_on_difficult_predictions_only() -> None:
    before = entropy(reference_logits())
    after = entropy(train(assembly_of(ADS), 300)[0])
    assert after[30:].mean() < 0.55 * before[30:].mean()
    assert torch.allclose(after[:30], before[:30], atol=2e-2)


def test_the_multiplier_settles_and_the_bound_is_kept() -> None:
    log = train(assembly_of({"term": "cross_entropy", "weight": 0.0}, ADS), 400)[1]
    last = log[-1]
    assert last["ads/bound"] == pytest.approx(0.5 * log[1]["ads/entropy_bounded"], rel=1e-6)
    assert last["ads/violation"] < 0.05 * last["ads/bound"]
    assert last["ads/lambda"] >= 0.0


def test_mistakes_are_not_made_more_certain() -> None:
    def wrong(logits: Tensor) -> Forward:
        return replace(forward_of(logits), labels=torch.full((NUM,), 5))

    assembly, logits = assembly_of(ADS | {"correct_top_k": 1}), reference_logits().requires_grad_()
    for step in range(6):
        forward = wrong(logits)
        total = assembly.loss(forward, whole_batch(assembly, forward)).total
        assert torch.autograd.grad(total, logits)[0].abs().sum() == 0.0
        assembly.after_step(step, assembly.statistics())


def test_a_constraint_that_holds_is_plain_fine_tuning() -> None:
    plain, _ = train(assembly_of({"term": "cross_entropy"}), 20)
    # The reference keeps its bound: nothing is asked for in so slow an annealing.
    bounded, log = train(assembly_of({"term": "cross_entropy"}, ADS | {"anneal_steps": 1_000_000}), 20)
    assert all(values["ads/coefficient"] == 0.0 for values in log[2:])
    assert torch.equal(plain, bounded)


def test_a_share_that_lags_behind_bounds_the_penalty() -> None:
    """Where few predictions passed the gate for long, and now many do."""
    gradients = []
    for share in (0.2, 1e-6):
        assembly, logits = assembly_of(ADS), reference_logits().requires_grad_()
        train(assembly, 12)
        state = assembly.state_dict()
        state["ads"]["share"] = share
        assembly.load_state_dict(state)
        forward = forward_of(logits)
        total = assembly.loss(forward, whole_batch(assembly, forward)).total
        gradients.append(torch.autograd.grad(total, logits)[0].norm().item())
    usual, bounded = gradients
    assert usual < bounded < 10 * usual


def test_a_second_constraint_keeps_the_student_near_its_teacher() -> None:
    def divergence(logits: Tensor) -> float:
        teacher = reference_logits().log_softmax(-1)
        return float((teacher.exp() * (teacher - logits.detach().log_softmax(-1))).sum(-1).mean())

    plain = {"term": "cross_entropy"}
    free, _ = train(assembly_of(plain), 300)
    held, log = train(assembly_of(plain, ADS | {"weight": 1.0, "max_kl": 0.02, "target_ratio": 0.99}), 300)
    assert divergence(free) > 0.1
    assert divergence(held) == pytest.approx(0.02, abs=0.01)
    assert log[-1]["ads/kl_lambda"] > 0.0


def test_a_resumed_run_is_the_same_run() -> None:
    whole, _ = train(assembly_of({"term": "cross_entropy"}, ADS), 60)
    first = assembly_of({"term": "cross_entropy"}, ADS)
    logits, _ = train(first, 25)
    second = assembly_of({"term": "cross_entropy"}, ADS)
    second.load_state_dict(first.state_dict())
    resumed, _ = train(second, 35, logits.detach().clone().requires_grad_())
    assert torch.equal(whole, resumed)


def test_statistics_have_the_same_names_whatever_happened() -> None:
    assembly = assembly_of(ADS)
    names = list(assembly.statistics())
    forward = forward_of(reference_logits())
    assembly.loss(forward, whole_batch(assembly, forward), only="ads")
    assert set(assembly.statistics().values()) == {0.0}
    assembly.loss(forward, whole_batch(assembly, forward))
    sums = assembly.statistics()
    assert list(sums) == names
    assert sums["ads/predictions"] == NUM


def test_an_evaluation_masks_its_own_difficult_tokens() -> None:
    """Before the first step, and of a term that only watches: what is difficult does not depend on the training."""
    flat = reference_logits()
    flat[30:] *= 0.5
    ads = ADS | {"quantile": 0.75, "sharpness": 0.001}
    watching = assembly_of({"term": "cross_entropy"}, ads | {"weight": 0.0})
    trained = assembly_of({"term": "cross_entropy"}, ads)
    train(trained, 20)
    for assembly in (watching, trained):
        forward = forward_of(flat)
        assembly.loss(forward, whole_batch(assembly, forward))
        seen = assembly.summary(assembly.statistics())
        assert seen["ads/entropy_hard"] == pytest.approx(entropy(flat)[30:].mean().item(), rel=0.02)
        assert seen["ads/entropy_easy"] == pytest.approx(entropy(flat)[:30].mean().item(), rel=0.02)


def test_the_students_own_entropy_needs_no_teacher() -> None:
    assembly = assembly_of(ADS | {"reference": "self"})
    forward = replace(forward_of(reference_logits()), targets=None)
    assembly.loss(forward, whole_batch(assembly, forward))
    assert assembly.after_step(0, assembly.statistics())["ads/threshold"] > 0


def test_the_quantile_of_a_histogram() -> None:
    counts = [0.0] * BINS
    counts[10], counts[20] = 30.0, 10.0
    assert quantile(counts, 0.75) == pytest.approx((11 / BINS) ** 2 * HIGHEST)
    assert quantile(counts, 0.9) == pytest.approx((20.6 / BINS) ** 2 * HIGHEST)
    values = entropy(torch.randn(5000, 50, generator=torch.Generator().manual_seed(1)) * 3)
    bins = ((values / HIGHEST).sqrt() * BINS).long()
    found = quantile(torch.bincount(bins, minlength=BINS).tolist(), 0.8)
    assert found == pytest.approx(values.quantile(0.8).item(), abs=0.02)
