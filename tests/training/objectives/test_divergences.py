"""Divergences by hand, against a slow float64 reference, sparse against dense, and their gradients."""

from math import exp, log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from objective_cases import dense_teacher, draw, predictions, top_k
from torch import Tensor

from tapster.runtime.errors import ConfigError, TrainingError
from tapster.training.objectives.batch import Dense, Predictions, Sparse, Targets
from tapster.training.objectives.forward_kl import forward_kl
from tapster.training.objectives.registry import make_term
from tapster.training.objectives.reverse_kl import reverse_kl
from tapster.training.objectives.uld import uld
from tapster.training.recipe.schema import Objective

DIVERGENCES = ("forward_kl", "reverse_kl", "jsd", "tvd")


def term_values(name: str, chunk: Predictions, **options: object) -> Tensor:
    return make_term(Objective.model_validate({"term": name} | options), name, 10).per_prediction(chunk)  # type: ignore[attr-defined]  it has logits


def reference(name: str, p: list[float], q: list[float], beta: float = 0.5) -> float:
    """Of two distributions, in Python's float64."""

    def kl(a: list[float], b: list[float]) -> float:
        return sum(x * (log(x) - log(y)) for x, y in zip(a, b, strict=True) if x > 0)

    mixture = [beta * x + (1 - beta) * y for x, y in zip(p, q, strict=True)]
    return {
        "forward_kl": lambda: kl(p, q),
        "reverse_kl": lambda: kl(q, p),
        "jsd": lambda: beta * kl(p, mixture) + (1 - beta) * kl(q, mixture),
        "tvd": lambda: sum(abs(x - y) for x, y in zip(p, q, strict=True)) / 2,
    }[name]()


def tempered(weights: list[float], temperature: float) -> list[float]:
    powers = [weight ** (1 / temperature) for weight in weights]
    return [power / sum(powers) for power in powers]


def factor(name: str, temperature: float) -> float:
    return temperature if name == "tvd" else temperature**2


P, Q = [0.5, 0.25, 0.25], [0.25, 0.25, 0.5]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("forward_kl", 0.25 * log(2)),
        ("reverse_kl", 0.25 * log(2)),
        ("jsd", 0.5 * log(4 / 3) + 0.25 * log(2 / 3)),
        ("tvd", 0.25),
    ],
)
def test_by_hand(name: str, value: float) -> None:
    chunk = predictions(torch.tensor([Q]).log(), Dense(torch.tensor([P]).log()))
    assert term_values(name, chunk).item() == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("name", DIVERGENCES)
@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_dense_against_the_reference(name: str, temperature: float) -> None:
    teacher, logits = dense_teacher(6), draw(6, 37, seed=3)
    found = term_values(name, predictions(logits, teacher), temperature=temperature)
    for value, p, z in zip(found, teacher.log_probs.double().exp().tolist(), logits.double().tolist(), strict=True):
        ours = reference(name, tempered(p, temperature), tempered([exp(x) for x in z], temperature))
        assert value.item() == pytest.approx(ours * factor(name, temperature), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "missing"),
    [(name, "bucket") for name in DIVERGENCES] + [(n, "zero") for n in ("forward_kl", "jsd", "tvd")],
)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_sparse_against_the_reference(name: str, temperature: float, missing: str) -> None:
    teacher, logits = top_k(dense_teacher(4), 5), draw(4, 37, seed=3)
    options = {} if name == "reverse_kl" else {"missing": missing}
    found = term_values(name, predictions(logits, teacher), temperature=temperature, **options)
    for row, value in enumerate(found):
        known, ids = teacher.log_probs[row].double().exp().tolist(), teacher.ids[row].tolist()
        rest = (1 - sum(known)) * known[-1] ** (1 / temperature - 1)
        powers = [p ** (1 / temperature) for p in known] + [rest if missing == "bucket" else 0.0]
        p = [power / sum(powers) for power in powers]
        whole = tempered([exp(x) for x in logits[row].double().tolist()], temperature)
        q = [whole[idx] for idx in ids]
        ours = reference(name, p, [*q, 1 - sum(q)])
        assert value.item() == pytest.approx(ours * factor(name, temperature), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_a_sparse_teacher_with_everything_is_a_dense_one(name: str) -> None:
    teacher, logits = dense_teacher(6), draw(6, 37, seed=3)
    dense = term_values(name, predictions(logits, teacher), temperature=2.0)
    sparse = term_values(name, predictions(logits, top_k(teacher, 37)), temperature=2.0)
    # What rounding leaves of the rest is taken for SMALLEST_REST on both sides.
    assert sparse.tolist() == pytest.approx(dense.tolist(), rel=1e-3, abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(k=st.integers(1, 36), seed=st.integers(0, 10_000), name=st.sampled_from(DIVERGENCES))
def test_knowing_less_never_makes_a_divergence_larger(k: int, seed: int, name: str) -> None:
    # In float64, for a rest is what is left of one.
    teacher = Dense((draw(3, 37, seed=seed, dtype=torch.float64) * 2).log_softmax(-1))
    logits = draw(3, 37, seed=seed + 1, dtype=torch.float64)
    dense = term_values(name, predictions(logits, teacher))
    less, more = (term_values(name, predictions(logits, top_k(teacher, size))) for size in (k, k + 1))
    assert (less >= -1e-5).all()
    assert (less <= more + 1e-4).all()
    assert (more <= dense + 1e-4).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), beta=st.floats(0.05, 0.95))
def test_bounds_and_symmetries(seed: int, beta: float) -> None:
    first, second = dense_teacher(3, seed=seed), dense_teacher(3, seed=seed + 1)
    there = term_values("jsd", predictions(first.log_probs, second), beta=beta)
    back = term_values("jsd", predictions(second.log_probs, first), beta=1 - beta)
    assert there.tolist() == pytest.approx(back.tolist(), abs=1e-5)
    assert (there <= log(2) + 1e-5).all()
    assert (term_values("tvd", predictions(first.log_probs, second)) <= 1 + 1e-5).all()
    for name in DIVERGENCES:
        assert term_values(name, predictions(first.log_probs, first)).abs().max() < 1e-5


def test_the_ends_of_jsd_are_the_kl_divergences() -> None:
    chunk = predictions(draw(4, 37, seed=3), dense_teacher(4))
    for beta, name in ((0.0, "forward_kl"), (1.0, "reverse_kl")):
        assert torch.equal(term_values("jsd", chunk, beta=beta), term_values(name, chunk))
    near = term_values("jsd", chunk, beta=1e-3) / 1e-3
    assert near.tolist() == pytest.approx(term_values("forward_kl", chunk).tolist(), rel=0.05)


@pytest.mark.parametrize("name", [*DIVERGENCES, "uld", "entropy", "cross_entropy"])
@pytest.mark.parametrize("targets", [dense_teacher(3), top_k(dense_teacher(3), 4)], ids=["dense", "sparse"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_gradients_by_finite_differences(name: str, targets: Targets, temperature: float) -> None:
    if name == "uld" and isinstance(targets, Sparse):
        temperature = 1.0  # another one is refused
    exact: Targets = (
        Dense(targets.log_probs.double())
        if isinstance(targets, Dense)
        else Sparse(targets.ids, targets.log_probs.double())
    )
    options = {} if name in ("entropy", "cross_entropy") else {"temperature": temperature}
    logits = draw(3, 37, seed=11, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: term_values(name, predictions(z, exact), **options), (logits,))


def test_pure_functions_are_what_the_terms_compute() -> None:
    teacher, logits = dense_teacher(4), draw(4, 37, seed=3)
    chunk = predictions(logits, teacher)
    assert torch.allclose(
        forward_kl(logits, teacher.log_probs, 2.0) * 4, term_values("forward_kl", chunk, temperature=2.0)
    )
    assert torch.allclose(
        reverse_kl(logits, teacher.log_probs, 2.0) * 4, term_values("reverse_kl", chunk, temperature=2.0)
    )


@pytest.mark.parametrize("name", DIVERGENCES)
def test_padding_and_impossible_tokens_leave_numbers_finite(name: str) -> None:
    sparse = Sparse(torch.tensor([[4, 9, 0, 0]]), torch.tensor([[0.6, 0.3, 0.0, 0.0]]).log())
    short = Sparse(sparse.ids[:, :2], sparse.log_probs[:, :2])
    dense = dense_teacher(1).log_probs.masked_fill(torch.arange(37) > 20, -torch.inf).log_softmax(-1)
    for targets in (sparse, Dense(dense)):
        logits = draw(1, 37, seed=3).requires_grad_()
        value = term_values(name, predictions(logits, targets)).sum()
        assert value.isfinite()
        assert torch.autograd.grad(value, logits)[0].isfinite().all()
    logits = draw(1, 37, seed=3)
    values = [term_values(name, predictions(logits, targets)).item() for targets in (sparse, short)]
    assert values[0] == pytest.approx(values[1], abs=1e-6)


def test_a_sampled_teacher_gives_the_gradient_of_the_whole_one_on_average() -> None:
    teacher, generator = dense_teacher(1), torch.Generator().manual_seed(0)
    whole = draw(1, 37, seed=3).requires_grad_()
    wanted = torch.autograd.grad(term_values("forward_kl", predictions(whole, teacher)).sum(), whole)[0]
    ids = torch.multinomial(teacher.log_probs.exp().expand(4000, -1), 16, replacement=True, generator=generator)
    sample = Sparse(ids, torch.full((4000, 16), -log(16)), is_sample=True)
    logits = whole.detach().expand(4000, -1).clone().requires_grad_()
    found = torch.autograd.grad(term_values("forward_kl", predictions(logits, sample)).mean(), logits)[0].sum(0)
    assert torch.allclose(found, wanted[0], atol=0.01)


@pytest.mark.parametrize("name", ["reverse_kl", "jsd", "tvd", "uld", "ads"])
def test_a_sampled_teacher_is_refused_where_it_would_be_biased(name: str) -> None:
    sample = Sparse(torch.tensor([[1, 2]]), torch.tensor([[0.5, 0.5]]).log(), is_sample=True)
    with pytest.raises(ConfigError, match="biased: take forward_kl"):
        term_values(name, predictions(draw(1, 37), sample))
    with pytest.raises(ConfigError, match="temperature 1 only"):
        term_values("forward_kl", predictions(draw(1, 37), sample), temperature=2.0)


def test_other_vocabularies_and_no_teacher_are_refused() -> None:
    with pytest.raises(TrainingError, match="the teacher has 20 tokens and the student 37"):
        term_values("forward_kl", predictions(draw(1, 37), dense_teacher(1, 20)))
    with pytest.raises(TrainingError, match="there are none"):
        term_values("forward_kl", predictions(draw(1, 37)))


def test_uld_by_hand() -> None:
    student, teacher = torch.tensor([[0.1, 0.7, 0.2]]), torch.tensor([[0.4, 0.1, 0.1, 0.4]])
    # sorted: .7 .2 .1 0 and .4 .4 .1 .1
    assert uld(student, teacher).item() == pytest.approx(0.3 + 0.2 + 0.0 + 0.1)
    assert uld(student, teacher, 2).item() == pytest.approx(0.3 + 0.2 + 0.1)
    assert uld(student, teacher, 100).item() == pytest.approx(0.6)
    assert uld(teacher, teacher.flip(-1)).item() == 0.0


def test_uld_of_a_sparse_teacher_knows_what_it_lacks() -> None:
    """A student that is its teacher has no loss; at other temperatures it would."""
    teacher = Dense(draw(4, 50, seed=3).log_softmax(-1))
    chunk = predictions(teacher.log_probs, top_k(teacher, 5))
    assert term_values("uld", chunk).tolist() == pytest.approx([0.0] * 4, abs=1e-6)
    for temperature in (0.999, 1.5):
        with pytest.raises(ConfigError, match=rf"biased at temperature {temperature}: set it to 1"):
            term_values("uld", chunk, temperature=temperature)


def test_uld_says_nothing_where_the_teacher_has_nothing_to_say() -> None:
    teacher = dense_teacher(2, 20)
    silent = Dense(torch.cat([teacher.log_probs[:1], torch.full((1, 20), -torch.inf)]))
    logits = draw(2, 37, seed=3).requires_grad_()
    for temperature in (1.0, 2.0):
        values = term_values("uld", predictions(logits, silent), temperature=temperature)
        assert values[0] > 0
        assert values[1] == 0
        gradient = torch.autograd.grad(values.sum(), logits)[0]
        assert gradient[0].abs().sum() > 0
        assert (gradient[1] == 0).all()
