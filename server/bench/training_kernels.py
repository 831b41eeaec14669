"""Losses over a large vocabulary, forward and backward, from hidden states: chunked against dense, and a sparse teacher
against plain cross-entropy.

``python -m tapster.server.bench.training_kernels FORM TURNS`` is a contestant of ``training_turns``.
"""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from .contest import Say
from .conversion import Row
from .training_turns import Pace, Turns, ratio, take_turns

if TYPE_CHECKING:
    from torch import Tensor

ROWS, LENGTH = 4, 512
VOCABULARY, WIDTH, PREDICTIONS, TOP_K = 49_152, 576, ROWS * LENGTH, 128
"""SmolLM2-135M's output matrix and a batch of four sequences."""
MEMORY_BAR, TIME_BAR, SPARSE_BAR = 0.25, 1.1, 1.1


def measure_kernels(*, repeat: int, say: Say) -> list[Row]:
    """The lines of the report: medians of ``repeat`` turns, and of their ratios."""
    whole, parts = _contest("dense", "chunked", repeat, say)
    plain, sparse = _contest("cross-entropy", "sparse", repeat, say)
    size = f"of {ROWS} x {LENGTH} over {VOCABULARY:,} tokens"
    return [
        Row(f"KL {size}, dense", whole.median_s, "s"),
        Row("its memory", whole.rise_bytes / 1e6, "MB"),
        Row(f"KL {size}, chunked: memory / dense", parts.rise_bytes / whole.rise_bytes, "x", MEMORY_BAR),
        Row(f"KL {size}, chunked: time / dense", ratio(parts, whole), "x", TIME_BAR),
        Row(f"cross-entropy {size}", plain.median_s, "s"),
        Row(f"sparse top-{TOP_K} KL {size}: time / cross-entropy", ratio(sparse, plain), "x", SPARSE_BAR),
    ]


def _contest(one: str, other: str, repeat: int, say: Say) -> list[Turns]:
    return take_turns(__name__, {one: [one], other: [other]}, repeat, "losses", say)


def _student() -> "tuple[Tensor, Tensor, Tensor]":
    """Hidden states, an output matrix, labels."""
    import torch

    torch.manual_seed(0)
    hidden = torch.randn(PREDICTIONS, WIDTH).requires_grad_()
    head = (torch.randn(VOCABULARY, WIDTH) * 0.05).requires_grad_()
    return hidden, head, torch.randint(0, VOCABULARY, (PREDICTIONS,))


def _teacher() -> "tuple[Tensor, Tensor]":
    """An online one: hidden states and an output matrix, from which logits are computed in either form."""
    import torch

    torch.manual_seed(1)
    return torch.randn(PREDICTIONS, WIDTH), torch.randn(VOCABULARY, WIDTH) * 0.05


def dense() -> Callable[[], float]:
    """A step of what one would write down; it returns the loss."""
    import torch
    from torch.nn.functional import kl_div

    (hidden, head, _), (teacher, teacher_head) = _student(), _teacher()

    def step() -> float:
        with torch.no_grad():
            targets = (teacher @ teacher_head.T).log_softmax(-1)
        student = (hidden @ head.T).log_softmax(-1)
        loss = kl_div(student, targets, reduction="batchmean", log_target=True)
        loss.backward()
        hidden.grad = head.grad = None
        return loss.item()

    return step


def chunked(form: str) -> Callable[[], float]:
    """A step as our trainer does it; it returns the loss."""
    import torch

    from ...training.objectives.assembly import Assembly
    from ...training.objectives.batch import Dense, Forward, GlobalBatch, Rows, Sparse, Targets
    from ...training.recipe.schema import Objective

    hidden, head, labels = _student()

    class Online:
        def __init__(self) -> None:
            self.states, self.head = _teacher()

        def chunk(self, part: slice) -> Targets:
            return Dense((self.states[part] @ self.head.T).log_softmax(-1))

    class Stored:
        def __init__(self) -> None:
            self.ids = torch.rand(PREDICTIONS, VOCABULARY // 8).topk(TOP_K).indices * 8  # each once
            self.log_probs = (torch.randn(PREDICTIONS, TOP_K).log_softmax(-1) - 0.1).sort(descending=True).values

        def chunk(self, part: slice) -> Targets:
            return Sparse(self.ids[part], self.log_probs[part])

    targets = {"chunked": Online, "sparse": Stored}.get(form)
    name = "cross_entropy" if targets is None else "forward_kl"
    assembly = Assembly([Objective(term=name)], total_steps=1)
    row, position = torch.arange(ROWS).repeat_interleave(LENGTH), torch.arange(LENGTH).repeat(ROWS)
    source = None if targets is None else targets()
    forward = Forward(hidden, head, labels, row, position, Rows(ROWS), 0, targets=source)

    def step() -> float:
        loss = assembly.loss(forward, GlobalBatch(PREDICTIONS, ROWS, 1)).total
        loss.backward()
        hidden.grad = head.grad = None
        return loss.item()

    return step


def main(form: str, turns: int) -> None:
    """What the process does."""
    pace = Pace(turns)
    step = dense() if form == "dense" else chunked(form)
    pace.begin()
    while True:
        step()
        pace.step_done()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
