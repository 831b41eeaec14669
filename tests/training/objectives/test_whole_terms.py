"""Terms of embeddings and hidden states."""

from collections.abc import Sequence

import pytest
import torch
from objective_cases import assembly_of, draw, forward_of, whole_batch
from torch import Tensor

from tapster.runtime.errors import ConfigError, TrainingError
from tapster.training.objectives.batch import GlobalBatch
from tapster.training.objectives.hidden_states import pairs_of
from tapster.training.objectives.options import HiddenOptions

ONE = GlobalBatch(10, 3, 1, {})


@pytest.mark.parametrize(("reduction", "wanted"), [("sum", 6 * 0.25), ("mean", 0.25), ("relative", 0.25 / 4.0)])
def test_the_anchor_by_hand(reduction: str, wanted: float) -> None:
    start = torch.full((2, 3), 2.0)
    embedding = (start + 0.5).requires_grad_()
    assembly = assembly_of({"term": "tea", "reduction": reduction})
    assembly.begin(start)
    loss = assembly.loss(forward_of(embedding=embedding), ONE)
    assert loss.terms["tea"] == pytest.approx(wanted)
    slope = {"sum": 1.0, "mean": 1 / 6, "relative": 1 / 24}[reduction]
    assert torch.allclose(torch.autograd.grad(loss.total, embedding)[0], torch.full((2, 3), slope))
    half = assembly.loss(forward_of(embedding=embedding), GlobalBatch(10, 3, 2, {}))
    assert half.terms["tea"] == pytest.approx(wanted / 2)


def test_the_anchor_stays_when_the_embedding_moves_in_place() -> None:
    weight = torch.nn.Parameter(torch.ones(2, 3))
    assembly = assembly_of({"term": "tea", "reduction": "sum"})
    assembly.begin(weight)
    assert assembly.loss(forward_of(embedding=weight), ONE).terms["tea"] == 0.0
    weight.data += 1.0
    assert assembly.loss(forward_of(embedding=weight), ONE).terms["tea"] == 6.0


def test_an_anchor_that_cannot_hold_is_an_error() -> None:
    assembly = assembly_of({"term": "tea"})
    with pytest.raises(TrainingError, match=r"call Assembly\.begin"):
        assembly.loss(forward_of(embedding=torch.ones(2, 3)), ONE)
    assembly.begin(torch.ones(2, 3))
    with pytest.raises(TrainingError, match=r"was \(2, 3\) and is \(4, 3\) now"):
        assembly.loss(forward_of(embedding=torch.ones(4, 3)), ONE)


def states(num: int, seed: int, size: int = 4) -> tuple[Tensor, ...]:
    return tuple(draw(3, 6, size, seed=seed + idx, dtype=torch.float64).requires_grad_() for idx in range(num))


def slow(student: Sequence[Tensor], teacher: Sequence[Tensor], pairs: list[tuple[int, int]], name: str) -> float:
    forward, values = forward_of(), []
    for ours, theirs in pairs:
        for row, position in zip(forward.row.tolist(), forward.position.tolist(), strict=True):
            a, b = student[ours][row, position], teacher[theirs][row, position]
            values.append(1 - a @ b / (a.norm() * b.norm()) if name == "hidden_cosine" else (a - b).square().mean())
    return torch.stack(values).mean().item()


@pytest.mark.parametrize("name", ["hidden_cosine", "hidden_mse"])
def test_hidden_states_against_the_reference(name: str) -> None:
    student, teacher = states(4, 10), states(4, 20)
    forward = forward_of(states=student, teacher_states=teacher)
    assembly = assembly_of({"term": name}, {"term": name, "layers": [[0, 2]]})
    loss = assembly.loss(forward, whole_batch(assembly, forward))
    assert loss.terms[name] == pytest.approx(slow(student, teacher, [(1, 1), (2, 2), (3, 3)], name), rel=1e-5)
    assert loss.terms[f"{name}-2"] == pytest.approx(slow(student, teacher, [(0, 2)], name), rel=1e-5)
    loss.total.backward()
    gradients = [state.grad for state in student]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)
    assert all(state.grad is None for state in teacher)


def test_all_layers_pair_the_last_with_the_last() -> None:
    options = HiddenOptions()
    assert pairs_of(options, 4, 4) == [(1, 1), (2, 2), (-1, -1)]
    assert pairs_of(options, 5, 4) == [(1, 1), (2, 2), (-1, -1)]
    with pytest.raises(ConfigError, match="the student has 3 layers and the teacher 6"):
        pairs_of(options, 4, 7)
    with pytest.raises(ConfigError, match=r"\[1, 9\], and the student has 4"):
        pairs_of(HiddenOptions(layers=[(1, 9)]), 4, 4)


def test_hidden_states_that_cannot_be_compared_are_an_error() -> None:
    assembly = assembly_of({"term": "hidden_mse"})
    with pytest.raises(TrainingError, match="only an online teacher"):
        assembly.loss(forward_of(), ONE)
    with pytest.raises(ConfigError, match="size 4 and the teacher's 5"):
        assembly.loss(forward_of(states=states(3, 0), teacher_states=states(3, 9, size=5)), ONE)
