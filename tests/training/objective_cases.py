"""Small batches for the tests of objectives: a random student's hidden states, labels, and teachers."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tapster.training.objectives.assembly import Assembly
from tapster.training.objectives.batch import Dense, Forward, GlobalBatch, Predictions, Rows, Sparse, Targets
from tapster.training.recipe.schema import Objective

VOCABULARY, WIDTH = 37, 8


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def dense_teacher(num: int, size: int = VOCABULARY, seed: int = 5) -> Dense:
    return Dense((draw(num, size, seed=seed) * 2).log_softmax(-1))


def top_k(dense: Dense, k: int) -> Sparse:
    values, ids = dense.log_probs.topk(k, dim=-1)
    return Sparse(ids, values)


class FromWhole:
    """A source of targets that has them all."""

    def __init__(self, targets: Targets) -> None:
        self.targets = targets
        self.asked: list[slice] = []

    def chunk(self, part: slice) -> Targets:
        self.asked.append(part)
        if isinstance(self.targets, Dense):
            return Dense(self.targets.log_probs[part])
        return Sparse(self.targets.ids[part], self.targets.log_probs[part], self.targets.is_sample)


def predictions(logits: Tensor, targets: Targets | None = None, labels: Tensor | None = None) -> Predictions:
    num = len(logits)
    labels = torch.arange(num) % logits.shape[1] if labels is None else labels
    return Predictions(logits, labels, torch.zeros(num, dtype=torch.long), Rows(1), targets)


def forward_of(
    row: Sequence[int] = (0, 0, 0, 1, 1, 2, 2, 2, 2, 2),
    *,
    columns: Mapping[str, Sequence[float]] | None = None,
    targets: Targets | None = None,
    seed: int = 0,
    step: int = 0,
    dtype: torch.dtype = torch.float32,
    **more: Any,
) -> Forward:
    """A forward pass whose hidden states, head and bias are leaves that want gradients."""
    num = len(row)
    rows = torch.tensor(row)
    labels = torch.randint(0, VOCABULARY, (num,), generator=torch.Generator().manual_seed(seed + 1))
    return Forward(
        hidden=draw(num, WIDTH, seed=seed, dtype=dtype).requires_grad_(),
        head=draw(VOCABULARY, WIDTH, seed=99, dtype=dtype).requires_grad_(),
        bias=draw(VOCABULARY, seed=98, dtype=dtype).requires_grad_(),
        labels=labels,
        row=rows,
        position=torch.cat([torch.arange(int(count)) for count in torch.bincount(rows)]),
        rows=Rows(int(rows.max()) + 1, {name: torch.tensor(values) for name, values in (columns or {}).items()}),
        step=step,
        targets=None if targets is None else FromWhole(targets),
        **more,
    )


def assembly_of(*objectives: Mapping[str, Any], total_steps: int = 100, **more: Any) -> Assembly:
    return Assembly([Objective(**objective) for objective in objectives], total_steps=total_steps, **more)


def whole_batch(assembly: Assembly, *forwards: Forward) -> GlobalBatch:
    """As a trainer counts it."""
    sums: dict[str, float] = {}
    for forward in forwards:
        for label, value in assembly.row_weight_sums(forward.rows, forward.row).items():
            sums[label] = sums.get(label, 0.0) + value
    num = sum(len(forward.row) for forward in forwards)
    return GlobalBatch(num, sum(forward.rows.count for forward in forwards), len(forwards), sums)


def dense_logits(forward: Forward) -> Tensor:
    assert forward.bias is not None
    return forward.hidden @ forward.head.T + forward.bias
