"""All terms together: micro-batches add up to one batch, one pass serves all, states and weights."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from objective_cases import (
    FromWhole,
    assembly_of,
    dense_logits,
    dense_teacher,
    draw,
    forward_of,
    predictions,
    top_k,
    whole_batch,
)
from torch import Tensor

from tapster.runtime.errors import ConfigError
from tapster.training.objectives.assembly import Assembly
from tapster.training.objectives.batch import Dense, Forward, GlobalBatch, Rows, Spans
from tapster.training.objectives.registry import TERMS

ROW = (0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 3)
COLUMNS = {"output_entropy": [0.1, 1.2, 2.0, 0.7], "group": [1.0, 1.0, 2.0, 2.0], "rank": [0.0, 1.0, 1.0, 0.0]}
EVERYTHING = [
    {"term": "cross_entropy", "weight": 0.5},
    {"term": "cross_entropy", "per": "sequence", "rows": "best"},
    {"term": "cwce"},
    {"term": "cwce", "normalize": "count", "per": "token"},
    {"term": "mixce", "weight": 0.3},
    {"term": "tea", "weight": 0.1},
    {"term": "ads", "weight": 2.0},
    {"term": "forward_kl", "temperature": 2.0},
    {"term": "reverse_kl"},
    {"term": "jsd", "beta": 0.3},
    {"term": "tvd"},
    {"term": "hidden_cosine"},
    {"term": "hidden_mse"},
    {"term": "pro", "weight": 0.25},
    {"term": "uld"},
    {"term": "alm"},
    {"term": "entropy", "weight": 0.0},
]


def everything() -> Forward:
    """A batch that has what every term needs."""
    states = tuple(draw(4, 6, 5, seed=40 + idx).requires_grad_() for idx in range(3))
    teacher_states = tuple(draw(4, 6, 5, seed=50 + idx) for idx in range(3))
    spans = Spans(torch.tensor([0, 0, 1, 2, -1, 3, 3, 4, -1, 4, 5]), -draw(6, seed=60).abs())
    embedding = draw(37, 8, seed=70).requires_grad_()
    return forward_of(
        ROW,
        columns=COLUMNS,
        targets=dense_teacher(len(ROW)),
        states=states,
        teacher_states=teacher_states,
        spans=spans,
        embedding=embedding,
    )


def rows_of(forward: Forward, begin: int, end: int) -> Forward:
    """The rows from ``begin`` to ``end`` as a micro-batch of their own, sharing its leaves."""
    chosen = (forward.row >= begin) & (forward.row < end)
    assert isinstance(forward.targets, FromWhole)
    assert isinstance(forward.targets.targets, Dense)
    assert forward.spans
    assert forward.states
    assert forward.teacher_states
    stretch, inverse = forward.spans.of_prediction[chosen].unique(return_inverse=True)
    known = stretch >= 0
    return replace(
        forward,
        hidden=forward.hidden[chosen],
        labels=forward.labels[chosen],
        row=forward.row[chosen] - begin,
        position=forward.position[chosen],
        rows=Rows(end - begin, {name: values[begin:end] for name, values in forward.rows.columns.items()}),
        targets=FromWhole(Dense(forward.targets.targets.log_probs[chosen])),
        states=tuple(state[begin:end] for state in forward.states),
        teacher_states=tuple(state[begin:end] for state in forward.teacher_states),
        spans=Spans(inverse - int((~known).sum()), forward.spans.teacher_log_probs[stretch[known]]),
    )


def ready(*objectives: dict[str, Any]) -> Assembly:
    """With an anchor that has been left, and a multiplier that presses."""
    assembly = assembly_of(*objectives, chunk_size=4)
    assembly.begin(draw(37, 8, seed=71))
    for step in range(3):
        forward = everything()
        assembly.loss(forward, whole_batch(assembly, forward))
        assembly.after_step(step, assembly.statistics())
    return assembly


def leaves(forward: Forward) -> list[Tensor]:
    assert forward.bias is not None
    assert forward.embedding is not None
    assert forward.states is not None
    return [forward.hidden, forward.head, forward.bias, forward.embedding, *forward.states]


def gradients(total: Tensor, forward: Forward) -> list[Tensor]:
    found = torch.autograd.grad(total, leaves(forward), allow_unused=True)
    return [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves(forward), strict=True)]


@pytest.mark.parametrize("objective", EVERYTHING, ids=lambda objective: "-".join(map(str, objective.values())))
@pytest.mark.parametrize("cuts", [(0, 2, 4)])
def test_micro_batches_add_up_to_one_batch(objective: dict[str, Any], cuts: tuple[int, ...]) -> None:
    assembly = ready(objective)
    label = objective["term"]
    forward = everything()
    whole = assembly.loss(forward, whole_batch(assembly, forward))
    wanted = gradients(whole.total, forward)
    statistics = assembly.statistics()
    parts = [rows_of(forward, begin, end) for begin, end in pairwise(cuts)]
    batch = whole_batch(assembly, *parts)
    losses = [assembly.loss(part, batch) for part in parts]
    assert sum(loss.terms[label] for loss in losses) == pytest.approx(whole.terms[label], rel=1e-4, abs=1e-6)
    found = gradients(torch.stack([loss.total for loss in losses]).sum(), forward)
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5, rtol=1e-4)
    assert assembly.statistics() == pytest.approx(statistics, rel=1e-5, abs=1e-5)
    if objective.get("weight") != 0.0:
        assert sum(g.abs().sum() for g in wanted) > 0


def test_the_whole_is_the_weighted_sum_of_its_terms() -> None:
    assembly, forward = ready(*EVERYTHING), everything()
    batch = whole_batch(assembly, forward)
    whole = assembly.loss(forward, batch)
    assert set(whole.terms) == set(whole.weights) == set(assembly.labels)
    wanted = sum(whole.weights[label] * whole.terms[label] for label in assembly.labels)
    assert whole.total.item() == pytest.approx(wanted, rel=1e-5)
    single = [assembly.loss(forward, batch, only=label) for label in assembly.labels]
    assert sum(loss.total.item() for loss in single) == pytest.approx(wanted, rel=1e-5)
    sums = [sum(each) for each in zip(*(gradients(loss.total, forward) for loss in single), strict=True)]
    for ours, theirs in zip(gradients(whole.total, forward), sums, strict=True):
        assert torch.allclose(ours, torch.as_tensor(theirs), atol=1e-5, rtol=1e-4)


def test_a_term_by_the_chunk_is_the_term_on_dense_logits() -> None:
    assembly, forward = ready(*EVERYTHING), everything()
    loss = assembly.loss(forward, whole_batch(assembly, forward))
    assert isinstance(forward.targets, FromWhole)
    chunk = predictions(dense_logits(forward), forward.targets.targets, forward.labels)
    for label, objective in zip(assembly.labels, EVERYTHING, strict=True):
        if label in ("forward_kl", "reverse_kl", "jsd", "tvd", "uld", "entropy", "cross_entropy", "mixce"):
            term = assembly_of(objective)._terms[objective["term"]]
            assert loss.terms[label] == pytest.approx(term.per_prediction(chunk).mean().item(), rel=1e-4)  # type: ignore[attr-defined]  it has logits


def test_the_teacher_is_asked_once_for_every_chunk() -> None:
    assembly, forward = ready({"term": "forward_kl"}, {"term": "tvd"}, {"term": "pro"}), everything()
    assembly.loss(forward, whole_batch(assembly, forward))
    assert isinstance(forward.targets, FromWhole)
    assert forward.targets.asked == [slice(0, 4), slice(4, 8), slice(8, 11)]


def test_ranking_by_the_chunk_has_the_dense_gradient() -> None:
    assembly, forward = ready({"term": "pro", "weight": 0.25}, {"term": "cross_entropy"}), everything()
    loss = assembly.loss(forward, whole_batch(assembly, forward))
    log_probs = dense_logits(forward).log_softmax(-1).gather(1, forward.labels[:, None])[:, 0]
    scores = torch.stack([log_probs[forward.row == row].mean() for row in range(4)])
    ranking = (torch.sigmoid(scores[0] - scores[1]).log() + torch.sigmoid(scores[3] - scores[2]).log()) / -2
    dense = 0.25 * ranking - log_probs.mean()
    assert loss.total.item() == pytest.approx(dense.item(), rel=1e-5)
    for ours, theirs in zip(gradients(loss.total, forward), gradients(dense, forward), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_sparse_source_gives_what_it_holds() -> None:
    targets = top_k(dense_teacher(len(ROW)), 6)
    forward = replace(everything(), targets=FromWhole(targets))
    assembly = assembly_of({"term": "forward_kl"}, chunk_size=3)
    chunk = predictions(dense_logits(forward), targets, forward.labels)
    wanted = assembly_of({"term": "forward_kl"})._terms["forward_kl"].per_prediction(chunk).mean()  # type: ignore[attr-defined]  it has logits
    assert assembly.loss(forward, whole_batch(assembly, forward)).total.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_weights_follow_their_schedules() -> None:
    assembly = assembly_of(
        {"term": "cross_entropy", "weight": [[10, 0.7], [20, 1.0]]}, {"term": "entropy", "weight": 0}
    )
    forward = forward_of(step=15)
    loss = assembly.loss(forward, whole_batch(assembly, forward))
    assert loss.weights == {"cross_entropy": pytest.approx(0.85), "entropy": 0.0}
    assert loss.total.item() == pytest.approx(0.85 * loss.terms["cross_entropy"], rel=1e-5)


def test_a_metric_leaves_the_gradient_alone() -> None:
    plain, beside = (
        assembly_of({"term": "cross_entropy"}),
        assembly_of({"term": "cross_entropy"}, {"term": "entropy", "weight": 0}),
    )
    forward = everything()
    found = [gradients(a.loss(forward, whole_batch(a, forward)).total, forward) for a in (plain, beside)]
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("watched", ["cross_entropy", "pro", "hidden_cosine"])
def test_what_is_only_watched_gives_no_gradient_not_even_zeros(watched: str) -> None:
    assembly, forward = ready({"term": "tea"}, {"term": watched, "weight": 0.0}), everything()
    loss = assembly.loss(forward, whole_batch(assembly, forward))
    assert loss.terms[watched] > 0
    assert loss.total.item() == pytest.approx(loss.terms["tea"])
    found = torch.autograd.grad(loss.total, leaves(forward), allow_unused=True)
    reached = [leaf is forward.embedding for leaf in leaves(forward)]
    assert [gradient is not None for gradient in found] == reached


def test_ranking_keeps_its_gradient_in_float16() -> None:
    """In a large batch a slope is far below what float16 holds."""
    tiny, found = 1e-6, []
    single = forward_of(ROW, columns=COLUMNS)
    matrices = {name: getattr(single, name).detach().half().requires_grad_() for name in ("hidden", "head", "bias")}
    for forward in (single, replace(single, **matrices)):
        assembly = assembly_of({"term": "pro", "weight": tiny}, chunk_size=4)
        loss = assembly.loss(forward, whole_batch(assembly, forward))
        found.append(torch.autograd.grad(loss.total / tiny, [forward.hidden, forward.head]))
    for wanted, half in zip(*found, strict=True):
        assert (half.float() - wanted).norm() < 0.02 * wanted.norm()


def test_an_empty_micro_batch_adds_nothing() -> None:
    for objective in ({"term": "cross_entropy"}, {"term": "tea"}, {"term": "mixce", "per": "sequence"}):
        assembly = ready(objective)
        forward = everything()
        empty = torch.zeros(0, dtype=torch.long)
        nothing = replace(forward, hidden=forward.hidden[:0], labels=empty, row=empty, position=empty, targets=None)
        loss = assembly.loss(nothing, GlobalBatch(11, 4, 2, {objective["term"]: 4.0}))
        assert loss.total.requires_grad
        if objective["term"] != "tea":
            assert loss.total.item() == 0.0


def test_without_gradients_the_values_are_the_same() -> None:
    assembly, forward = ready(*EVERYTHING), everything()
    batch = whole_batch(assembly, forward)
    with torch.no_grad():
        quiet = assembly.loss(forward, batch)
    assert not quiet.total.requires_grad
    assert quiet.terms == pytest.approx(assembly.loss(forward, batch).terms, rel=1e-6)


def test_needs_are_those_of_all_terms() -> None:
    assembly = assembly_of(*EVERYTHING)
    assert assembly.needs_targets
    assert assembly.needs_states
    assert set(assembly.needs_columns) == {"rank", "output_entropy", "group"}
    assert {objective["term"] for objective in EVERYTHING} == set(TERMS)


def test_a_state_of_another_recipe_is_refused() -> None:
    with pytest.raises(ConfigError, match="no state of the term ads"):
        assembly_of({"term": "ads"}).load_state_dict({})
