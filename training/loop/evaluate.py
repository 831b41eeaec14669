"""The loss on held-out rows, term by term, normalised over all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..objectives.batch import GlobalBatch, Rows
from ..objectives.select import predictions_of
from .collate import columns_of
from .together import sum_up

if TYPE_CHECKING:
    from ..objectives.assembly import Assembly

Signals = Callable[[Mapping[str, Tensor]], dict[str, Any]]
"""What the teacher has to say of a batch, as keyword arguments of ``StudentModule.forward``."""


def global_batch(assembly: Assembly, batches: Iterable[Mapping[str, Tensor]], device: torch.device) -> GlobalBatch:
    """What the terms over ``batches`` of all processes are normalised by."""
    counts = {"predictions": 0.0, "rows": 0.0, "micro_batches": 0.0}
    sums = dict.fromkeys(assembly.labels, 0.0)
    for batch in batches:
        row, _ = predictions_of(batch)
        rows = Rows(len(batch["input_ids"]), columns_of(batch))
        counts["predictions"] += len(row)
        counts["rows"] += rows.count
        counts["micro_batches"] += 1
        for name, value in assembly.row_weight_sums(rows, row).items():
            sums[name] += value
    all_sums = sum_up(counts | {f"sum {name}": value for name, value in sums.items()}, device)
    return GlobalBatch(
        predictions=round(all_sums["predictions"]),
        rows=round(all_sums["rows"]),
        micro_batches=round(all_sums["micro_batches"]),
        sums={name: all_sums[f"sum {name}"] for name in sums},
    )


@torch.no_grad()
def held_out(
    module: Any,
    assembly: Assembly,
    batches: Sequence[Mapping[str, Tensor]],
    signals: Signals,
    step: int,
    device: torch.device,
    fillers: Sequence[Mapping[str, Tensor]] = (),
) -> dict[str, float]:
    """``batches`` are this process's part, perhaps none. Returns ``loss``, ``terms/…`` and what stateful terms saw as
    ``state/…``. ``fillers`` go through the module and count for nothing."""
    whole = global_batch(assembly, batches, device)
    values = dict.fromkeys(("loss", *(f"terms/{label}" for label in assembly.labels)), 0.0)
    was_training = module.training
    module.eval()
    for batch in batches:
        here = {name: value.to(device) for name, value in batch.items()}
        loss, terms, _ = module(here, step=step, global_batch=whole, **signals(here))
        values["loss"] += float(loss.detach())
        for name, value in terms.items():
            values[f"terms/{name}"] += float(value)
    for batch in fillers:
        here = {name: value.to(device) for name, value in batch.items()}
        module(here, step=step, global_batch=whole, **signals(here))
    module.train(was_training)
    seen = assembly.summary(sum_up(assembly.statistics(), device))
    return sum_up(values, device) | {f"state/{name}": value for name, value in seen.items()}
