"""A teacher in memory with another tokenizer than the student's: it reads the same text in its own tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .base import Kind, Reads
from .head import SplitModel
from .retelling import Retelling, Told

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

    from ..objectives.batch import Dense, Spans


@dataclass(frozen=True, slots=True)
class Document:
    """A text of a batch: the student's tokens ``start`` to ``stop`` of ``row``, and how the teacher reads them."""

    row: int
    start: int
    told: Told


@dataclass(frozen=True, slots=True)
class Reading:
    """A batch as the teacher read it: ``hidden`` (documents, S, D) and ``ids`` (documents, S) in its own tokens."""

    documents: list[Document]
    hidden: Tensor
    ids: Tensor


class PlacedTargets:
    """Distributions over the teacher's tokens at places in the text where both tokenizers have a border; ``hidden``
    (M, D) of these, ``place`` (N,) which one each prediction has, -1 for none."""

    def __init__(self, split: SplitModel, hidden: Tensor, place: Tensor) -> None:
        self._split, self._hidden, self._place = split, hidden, place

    def chunk(self, part: slice) -> Dense:
        import torch

        from ..objectives.batch import Dense

        place = self._place[part]
        with torch.no_grad():
            log_probs = place.new_full((len(place), self._split.vocab_size), -torch.inf, dtype=torch.float32)
            there = place >= 0
            log_probs[there] = torch.log_softmax(self._split.logits(self._hidden[place[there]]), dim=-1)
            return Dense(log_probs)


class ForeignTeacher:
    """``model`` is never changed and gets no gradients. What it says of one batch comes from one forward pass."""

    kind: ClassVar[Kind] = "online"
    reads: ClassVar[Reads] = "nothing"

    def __init__(self, model: Any, name: str, retelling: Retelling) -> None:
        model.eval().requires_grad_(False)
        self._split: SplitModel | None = SplitModel(model)
        self._name, self._retelling = name, retelling
        self._last: tuple[Tensor, Reading] | None = None
        """The input ids of the last batch, and what came of them."""

    def prepare(self, *parts: Iterable[Any]) -> None:
        """Nothing is kept."""

    def rows(self, conversations: Dataset) -> Dataset:
        return conversations

    def targets(self, batch: Mapping[str, Tensor], row: Tensor, position: Tensor) -> PlacedTargets:
        """At the predictions whose place in the text is a border of the teacher's tokens as well."""
        import torch

        reading = self._read(batch)
        width = reading.ids.shape[1]
        place = np.full(tuple(batch["input_ids"].shape), -1)
        for number, document in enumerate(reading.documents):
            for ours, theirs in document.told.stretches:
                place[document.row, document.start + ours.stop - 1] = number * width + theirs.stop - 1
        found = torch.from_numpy(place[row.cpu().numpy(), position.cpu().numpy()]).to(reading.hidden.device)
        assert self._split
        return PlacedTargets(self._split, reading.hidden.flatten(0, 1), found)

    def spans(self, batch: Mapping[str, Tensor], row: Tensor, position: Tensor) -> Spans:
        import torch

        from ..objectives.batch import Spans

        reading, device = self._read(batch), row.device
        is_predicted = np.zeros(tuple(batch["input_ids"].shape), bool)
        is_predicted[row.cpu().numpy(), position.cpu().numpy() + 1] = True
        found = _whole_stretches(reading.documents, is_predicted)
        of_prediction = torch.from_numpy(found.of_token).to(device)[row, position + 1]
        number, at, stretch = (torch.as_tensor(values, device=reading.hidden.device) for values in found.teacher_tokens)
        assert self._split
        log_probs = self._split.label_log_probs(reading.hidden[number, at - 1], reading.ids[number, at])
        total = log_probs.new_zeros(found.count).index_add(0, stretch, log_probs)
        return Spans(of_prediction, total.to(device))

    def states(self, batch: Any) -> None:
        """Its positions are others than the student's."""

    def identity(self) -> dict[str, Any]:
        return {"kind": self.kind, "model": self._name, "tokenizer": "its own"}

    def close(self) -> None:
        self._split = self._last = None

    def _read(self, batch: Mapping[str, Tensor]) -> Reading:
        ids = batch["input_ids"]
        if self._last is None or self._last[0] is not ids:
            self._last = (ids, self._forward([*_documents(batch, self._retelling)]))
        return self._last[1]

    def _forward(self, documents: list[Document]) -> Reading:
        import torch

        assert self._split
        device = self._split.head.weight.device
        width = max(1, *(len(document.told.ids) for document in documents))
        ids = torch.zeros(len(documents), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for number, document in enumerate(documents):
            ids[number, : len(document.told.ids)] = torch.tensor(document.told.ids)
            mask[number, : len(document.told.ids)] = 1
        ids, mask = ids.to(device), mask.to(device)
        with torch.no_grad():
            hidden, _ = self._split.forward({"input_ids": ids, "attention_mask": mask})
        return Reading(documents, hidden, ids)


@dataclass(frozen=True, slots=True)
class _Stretches:
    """``count`` stretches: ``of_token`` (B, T) which one each of the student's tokens is in, -1 for none;
    ``teacher_tokens`` (3, n): the document, the place in it and the stretch of each of the teacher's tokens."""

    count: int
    of_token: np.ndarray
    teacher_tokens: np.ndarray


def _whole_stretches(documents: Iterable[Document], is_predicted: np.ndarray) -> _Stretches:
    """Those all of whose tokens, of both sides, are predicted by something."""
    of_token, tokens, count = np.full(is_predicted.shape, -1), [], 0
    for number, document in enumerate(documents):
        for ours, theirs in document.told.stretches:
            here = (document.row, slice(document.start + ours.start, document.start + ours.stop))
            if theirs.start == 0 or not is_predicted[here].all():
                continue
            of_token[here] = count
            tokens += [(number, at, count) for at in range(theirs.start, theirs.stop)]
            count += 1
    return _Stretches(count, of_token, np.array(tokens, np.int64).reshape(-1, 3).T)


def _documents(batch: Mapping[str, Tensor], retelling: Retelling) -> Iterable[Document]:
    """The texts of a batch: rows without their padding, or the documents that share one."""
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    for row, (ids, length) in enumerate(zip(batch["input_ids"].tolist(), lengths, strict=True)):
        segments = batch["segments"][row, :length].cpu().numpy() if "segments" in batch else np.zeros(length, int)
        borders = [0, *(np.flatnonzero(np.diff(segments)) + 1).tolist(), length]
        for start, stop in pairwise(borders):
            yield Document(row, start, retelling.tell(ids[start:stop]))
