"""Losses over a large vocabulary: chunked against dense, and a sparse teacher against plain cross-entropy.

Each form runs in a process of its own, for its peak memory is the process's: the rise from before the loss to its peak.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

from ...runtime.errors import EngineError
from .conversion import Row
from .peak import peak_bytes

VOCABULARY, WIDTH, PREDICTIONS, TOP_K = 49_152, 576, 4 * 512, 128
"""SmolLM2-135M's output matrix and a batch of four sequences."""
FORMS = ("dense", "chunked", "cross_entropy", "sparse")


def measure_kernels(*, repeat: int, say: Callable[[str], None]) -> list[Row]:
    """Forward and backward of the loss from hidden states and targets, the median of ``repeat`` in a process."""
    seconds, rise = {}, {}
    for form in FORMS:
        say(f"loss over {VOCABULARY:,} tokens, {form}")
        seconds[form], rise[form] = _in_child(form, repeat)
    size = f"of 4 x 512 over {VOCABULARY:,} tokens"
    return [
        Row(f"KL {size}, dense", seconds["dense"], "s"),
        Row("its peak memory", rise["dense"] / 1e6, "MB"),
        Row(f"KL {size}, chunked: peak memory / dense", rise["chunked"] / rise["dense"], "x", 0.25),
        Row(f"KL {size}, chunked: time / dense", seconds["chunked"] / seconds["dense"], "x", 1.1),
        Row(
            f"sparse top-{TOP_K} KL {size}: time / cross-entropy",
            seconds["sparse"] / seconds["cross_entropy"],
            "x",
            1.1,
        ),
    ]


def _in_child(form: str, repeat: int) -> tuple[float, float]:
    command = [sys.executable, "-m", __name__, form, str(repeat)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EngineError(f"measuring the loss {form} failed: {done.stderr.strip().splitlines()[-1:]}")
    seconds, rise = json.loads(done.stdout)
    return seconds, rise


def _measure(form: str, repeat: int) -> tuple[float, float]:
    """The median seconds of a step, and by how many bytes the peak rose over what the inputs take."""
    step = _dense() if form == "dense" else _chunked(form)
    before, times = peak_bytes(), []
    for _ in range(repeat):
        begin = perf_counter()
        step()
        times.append(perf_counter() - begin)
    return median(times), float(peak_bytes() - before)


def _student() -> tuple[Any, Any, Any]:
    import torch

    torch.manual_seed(0)
    hidden = torch.randn(PREDICTIONS, WIDTH).requires_grad_()
    head = (torch.randn(VOCABULARY, WIDTH) * 0.05).requires_grad_()
    return hidden, head, torch.randint(0, VOCABULARY, (PREDICTIONS,))


def _teacher() -> tuple[Any, Any]:
    """An online teacher: hidden states and a head, from which logits are computed in either form."""
    import torch

    torch.manual_seed(1)
    return torch.randn(PREDICTIONS, WIDTH), torch.randn(VOCABULARY, WIDTH) * 0.05


def _dense() -> Callable[[], None]:
    import torch

    from ...training.objectives.forward_kl import kl

    (hidden, head, _), (teacher, teacher_head) = _student(), _teacher()

    def step() -> None:
        with torch.no_grad():
            targets = (teacher @ teacher_head.T).log_softmax(-1)
        kl(targets, (hidden @ head.T).log_softmax(-1)).mean().backward()
        hidden.grad = head.grad = None

    return step


def _chunked(form: str) -> Callable[[], None]:
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
            self.ids = torch.randint(0, VOCABULARY, (PREDICTIONS, TOP_K))
            self.log_probs = (torch.randn(PREDICTIONS, TOP_K).log_softmax(-1) - 0.1).sort(descending=True).values

        def chunk(self, part: slice) -> Targets:
            return Sparse(self.ids[part], self.log_probs[part])

    targets = {"chunked": Online, "sparse": Stored}.get(form)
    name = "cross_entropy" if targets is None else "forward_kl"
    assembly = Assembly([Objective(term=name)], total_steps=1)
    row, position = torch.arange(4).repeat_interleave(512), torch.arange(512).repeat(4)
    source = None if targets is None else targets()
    forward = Forward(hidden, head, labels, row, position, Rows(4), 0, targets=source)

    def step() -> None:
        assembly.loss(forward, GlobalBatch(PREDICTIONS, 4, 1)).total.backward()
        hidden.grad = head.grad = None

    return step


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_measure(sys.argv[1], int(sys.argv[2]))))
