"""A teacher in memory beside the student."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from .base import Kind, Reads
from .head import SplitModel

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

    from ..objectives.batch import Dense, Spans


class HiddenTargets:
    """Distributions that are computed from hidden states (N, D) when asked for."""

    def __init__(self, split: SplitModel, hidden: Tensor) -> None:
        self._split = split
        self._hidden = hidden

    def chunk(self, part: slice) -> Dense:
        import torch

        from ..objectives.batch import Dense

        with torch.no_grad():
            return Dense(torch.log_softmax(self._split.logits(self._hidden[part]), dim=-1))


class OnlineTeacher:
    """``model`` is never changed and gets no gradients. ``targets`` and ``states`` of one batch share a forward pass if
    ``with_states``."""

    kind: ClassVar[Kind] = "online"
    reads: ClassVar[Reads] = "nothing"

    def __init__(self, model: Any, name: str, *, with_states: bool = False, vocab_size: int | None = None) -> None:
        model.eval().requires_grad_(False)
        self._split: SplitModel | None = SplitModel(model, vocab_size)
        self._name = name
        self._with_states = with_states
        self._last: tuple[Tensor, Tensor, Any] | None = None
        """The input ids of the last batch, and what came of them."""

    def prepare(self, *parts: Iterable[Any]) -> None:
        """Nothing is kept."""

    def rows(self, conversations: Dataset) -> Dataset:
        return conversations

    def targets(self, batch: Mapping[str, Tensor], row: Tensor, position: Tensor) -> HiddenTargets:
        hidden, _ = self._forward(batch)
        assert self._split
        device = hidden.device
        return HiddenTargets(self._split, hidden[row.to(device), position.to(device)])

    def spans(self, batch: Mapping[str, Tensor], row: Tensor, position: Tensor) -> Spans:
        """Each prediction is a stretch of its own."""
        import torch

        from ..objectives.batch import Spans

        hidden, _ = self._forward(batch)
        assert self._split
        labels = batch["labels"][row, position + 1].to(hidden.device)
        log_probs = self._split.label_log_probs(hidden[row.to(hidden.device), position.to(hidden.device)], labels)
        return Spans(torch.arange(len(row), device=row.device), log_probs.to(row.device))

    def states(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        self._with_states = True
        return tuple(self._forward(batch)[1])

    def identity(self) -> dict[str, Any]:
        return {"kind": self.kind, "model": self._name}

    def close(self) -> None:
        self._split = self._last = None

    def _forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Any]:
        import torch

        ids, with_states = batch["input_ids"], self._with_states
        if self._last is None or self._last[0] is not ids or (with_states and self._last[2] is None):
            assert self._split
            device = self._split.head.weight.device
            with torch.no_grad():
                on_device = {name: value.to(device) for name, value in batch.items()}
                self._last = (ids, *self._split.forward(on_device, with_states=with_states))
        return self._last[1], self._last[2]
