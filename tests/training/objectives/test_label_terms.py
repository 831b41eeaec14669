"""Terms of the labels: cross-entropy, CWCE, MixCE, PRO, ALM, by hand and against slow references."""

from collections.abc import Sequence
from math import exp, log
from typing import Any

import pytest
import torch
from objective_cases import assembly_of, dense_logits, draw, forward_of, whole_batch

from tapster.runtime.errors import ConfigError, TrainingError
from tapster.training.objectives.alignment import shared_borders
from tapster.training.objectives.alm import binary_kl
from tapster.training.objectives.batch import Forward, Spans
from tapster.training.objectives.cwce import confidence
from tapster.training.objectives.mixce import mixce
from tapster.training.objectives.pro import ranking_loss
from tapster.training.objectives.select import predictions_of

ROW = (0, 0, 0, 1, 1, 2, 2, 2, 2, 2)


def label_log_probs(forward: Forward) -> list[float]:
    logits = dense_logits(forward).double()
    return logits.log_softmax(-1).gather(1, forward.labels[:, None])[:, 0].tolist()


def value_of(forward: Forward, **objective: Any) -> float:
    assembly = assembly_of(objective)
    return assembly.loss(forward, whole_batch(assembly, forward)).terms[objective["term"]]


def test_positions_predict_the_next_token_and_only_labels_count() -> None:
    labels = torch.tensor([[-100, -100, 7, 8], [5, -100, 6, -100], [-100, -100, -100, -100]])
    row, position = predictions_of({"labels": labels})
    assert list(zip(row.tolist(), position.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 1)]
    assert labels[row, position + 1].tolist() == [7, 8, 6]


def test_no_document_predicts_the_beginning_of_the_next() -> None:
    batch = {"labels": torch.tensor([[1, 2, 3, 4, 5]]), "segments": torch.tensor([[0, 0, 1, 1, 2]])}
    assert predictions_of(batch)[1].tolist() == [0, 2]


def test_cross_entropy_by_token_by_sequence_and_of_the_best() -> None:
    forward = forward_of(ROW, columns={"rank": [0.0, 1.0, 0.0]})
    losses = [-value for value in label_log_probs(forward)]
    means = [sum(part) / len(part) for part in (losses[:3], losses[3:5], losses[5:])]
    assert value_of(forward, term="cross_entropy") == pytest.approx(sum(losses) / 10, rel=1e-5)
    assert value_of(forward, term="cross_entropy", per="sequence") == pytest.approx(sum(means) / 3, rel=1e-5)
    best = (sum(losses[:3]) + sum(losses[5:])) / 8
    assert value_of(forward, term="cross_entropy", rows="best") == pytest.approx(best, rel=1e-5)
    both = (means[0] + means[2]) / 2
    assert value_of(forward, term="cross_entropy", rows="best", per="sequence") == pytest.approx(both, rel=1e-5)


@pytest.mark.parametrize(
    ("entropy", "weight"), [(0.0, 0.933), (0.3, 0.901), (0.7, 0.838), (1.0, 0.775), (1.5, 0.65), (3.0, 0.367)]
)
def test_confidence_by_hand(entropy: float, weight: float) -> None:
    assert confidence(torch.tensor(entropy)).item() == pytest.approx(weight, abs=6e-4)


@pytest.mark.parametrize("per", ["token", "sequence"])
@pytest.mark.parametrize("normalize", ["weights", "count"])
def test_cwce_against_the_reference(per: str, normalize: str) -> None:
    entropies = [0.2, 1.5, 2.5]
    forward = forward_of(ROW, columns={"output_entropy": entropies})
    losses = [-value for value in label_log_probs(forward)]
    parts = [losses[:3], losses[3:5], losses[5:]]
    weights = [0.3 + 0.7 / (1 + exp(1.5 * (entropy - 1.5))) for entropy in entropies]
    sizes = [1 if per == "sequence" else len(part) for part in parts]
    values = [sum(part) / len(part) if per == "sequence" else sum(part) for part in parts]
    divisor = sum(w * size for w, size in zip(weights, sizes, strict=True)) if normalize == "weights" else sum(sizes)
    wanted = sum(w * value for w, value in zip(weights, values, strict=True)) / divisor
    assert value_of(forward, term="cwce", per=per, normalize=normalize) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("calibration", "wanted"),
    [("quantile", [0.3, 0.9, 2.7]), ("zscore", [1.5 - 2 / 2**0.5, 1.5 - 1 / 2**0.5, 1.5 + 2 / 2**0.5])],
)
def test_a_calibration_spreads_the_training_sets_entropies(calibration: str, wanted: list[float]) -> None:
    corpus = {"output_entropy": [0.3, 0.1, 0.2, 0.5, 0.4]}
    assembly = assembly_of({"term": "cwce", "per": "token", "calibration": calibration}, columns=corpus)
    forward = forward_of((0, 1, 2), columns={"output_entropy": [0.1, 0.2, 0.5]})
    weights = sum(confidence(torch.tensor(entropy)).item() for entropy in wanted)
    assert assembly.row_weight_sums(forward.rows, forward.row)["cwce"] == pytest.approx(weights, rel=1e-5)
    with pytest.raises(ConfigError, match="the rows do not have"):
        assembly_of({"term": "cwce", "calibration": calibration})


def test_an_entropy_that_is_no_number_is_an_error() -> None:
    with pytest.raises(TrainingError, match="output_entropy of a row is not a number"):
        value_of(forward_of((0, 1), columns={"output_entropy": [1.0, float("nan")]}), term="cwce")


def test_mixce_by_hand_and_its_gradient_holds_the_weight_still() -> None:
    log_probs = torch.tensor([log(0.5), log(0.1)], requires_grad=True)
    loss = mixce(log_probs, 0.75)
    assert loss.tolist() == pytest.approx([(0.75 + 0.125) * log(2), (0.75 + 0.025) * log(10)])
    assert torch.autograd.grad(loss.sum(), log_probs)[0].tolist() == pytest.approx([-0.875, -0.775])
    forward = forward_of()
    assert value_of(forward, term="mixce", eta=1.0) == pytest.approx(value_of(forward, term="cross_entropy"), rel=1e-6)


def slow_pro(scores: Sequence[float], ranks: Sequence[int], average: bool) -> float:
    losses = []
    for score, rank in zip(scores, ranks, strict=True):
        worse = [exp(other) for other, its in zip(scores, ranks, strict=True) if its > rank]
        if worse:
            against = sum(worse) / (len(worse) if average else 1)
            losses.append(-log(exp(score) / (exp(score) + against)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("ranks", [[0, 1], [1, 0], [2, 0, 1], [0, 1, 1, 1], [0, 0, 1, 2]])
def test_ranking_against_the_reference(ranks: list[int], average: bool) -> None:
    scores = [-1.3, -0.2, -2.0, -0.7][: len(ranks)]
    found = ranking_loss(torch.tensor(scores), torch.tensor(ranks), average=average)
    assert found.item() == pytest.approx(slow_pro(scores, ranks, average), rel=1e-5)


def test_a_pair_is_minus_log_sigmoid_of_the_difference() -> None:
    scores = torch.tensor([-0.5, -1.5], requires_grad=True)
    loss = ranking_loss(scores, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx(log(1 + exp(-1.0)))
    slope = 1 / (1 + exp(1.0))
    assert torch.autograd.grad(loss, scores)[0].tolist() == pytest.approx([-slope, slope])
    detached = ranking_loss(scores, torch.tensor([0, 1]), detach_worse=True)
    assert torch.autograd.grad(detached, scores)[0].tolist() == pytest.approx([-slope, 0.0])


def test_pro_averages_over_groups_of_length_normalised_answers() -> None:
    columns = {"group": [4.0, 9.0, 9.0, 4.0], "rank": [0.0, 1.0, 0.0, 1.0]}
    forward = forward_of((0, 0, 0, 1, 1, 2, 2, 2, 3), columns=columns)
    log_probs = label_log_probs(forward)
    scores = [sum(part) / len(part) for part in (log_probs[:3], log_probs[3:5], log_probs[5:8], log_probs[8:])]
    wanted = (slow_pro([scores[0], scores[3]], [0, 1], True) + slow_pro([scores[2], scores[1]], [0, 1], True)) / 2
    assert value_of(forward, term="pro") == pytest.approx(wanted, rel=1e-4)


def test_a_group_that_came_apart_is_an_error() -> None:
    with pytest.raises(TrainingError, match="keep them in one micro-batch"):
        value_of(forward_of((0, 1, 2), columns={"group": [0.0, 0.0, 1.0], "rank": [0.0, 1.0, 0.0]}), term="pro")


@pytest.mark.parametrize(
    ("ours", "theirs", "wanted"),
    [
        ([2, 5, 9], [2, 9], [((0, 1), (0, 1)), ((1, 3), (1, 2))]),
        ([1, 2, 3], [3], [((0, 3), (0, 1))]),
        ([3, 5], [4, 6], []),
        ([2, 2, 4], [2, 4, 4], [((0, 2), (0, 1)), ((2, 3), (1, 3))]),
        ([2, 5], [2, 4], [((0, 1), (0, 1))]),
        ([], [3], []),
    ],
)
def test_stretches_between_shared_borders(ours: list[int], theirs: list[int], wanted: list[Any]) -> None:
    found = [((a.start, a.stop), (b.start, b.stop)) for a, b in shared_borders(ours, theirs)]
    assert found == wanted


def test_alm_by_hand() -> None:
    student, teacher = torch.tensor([log(0.25)]), torch.tensor([log(0.5)])
    wanted = 0.5 * log(2) + 0.5 * log(0.5 / 0.75)
    assert binary_kl(student, teacher, 1.0).item() == pytest.approx(wanted, rel=1e-5)
    assert binary_kl(teacher, teacher, 100.0).item() == 0.0
    certain = torch.zeros(1, requires_grad=True)
    loss = binary_kl(certain, teacher, 100.0).sum()
    assert loss.isfinite()


def test_alm_adds_up_the_tokens_of_a_stretch() -> None:
    spans = Spans(torch.tensor([0, 0, 1, -1, 2, 2, 2, -1, -1, 3]), torch.tensor([-3.0, -1.0, -9.0, -0.5]))
    forward = forward_of(ROW, spans=spans)
    log_probs = label_log_probs(forward)
    ours = [sum(log_probs[0:2]), log_probs[2], sum(log_probs[4:7]), log_probs[9]]
    wanted = sum(
        100 * binary_kl(torch.tensor([a]).double(), torch.tensor([b]).double(), 100.0).item()
        for a, b in zip(ours, spans.teacher_log_probs.tolist(), strict=True)
    )
    assert value_of(forward, term="alm") == pytest.approx(wanted / 10, rel=1e-3)
    with pytest.raises(TrainingError, match="there are none"):
        value_of(forward_of(ROW), term="alm")


def test_alm_and_ranking_gradients_by_finite_differences() -> None:
    teacher = -draw(5, seed=4, dtype=torch.float64).abs()
    student = (-draw(5, seed=6, dtype=torch.float64).abs() - 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: binary_kl(s, teacher, 2.0), (student,))
    ranks = torch.tensor([0, 2, 1, 1, 0])
    assert torch.autograd.gradcheck(lambda s: ranking_loss(s, ranks), (student,))
