"""An ONNX folder as a slot model, of the kind that its graph allows."""

import logging
from pathlib import Path

import numpy as np
import onnxruntime

from ...errors import ModelError
from ..slots.memory import fit_slots
from ..slots.model import SlotModel, check_last_position
from .graph import Graph, read_graph
from .growing_model import GrowingModel
from .session import declared_cache, first_line, open_session
from .table_model import TableModel

log = logging.getLogger(__name__)


def open_model(path: Path, *, context_length: int, parallel: int, threads: int | None) -> SlotModel:
    """Load the graph in ``path`` with slots for ``parallel`` running sequences. ModelError."""
    session = open_session(path, threads)
    graph = read_graph(session, declared_cache(path))
    slots = fit_slots(parallel, context_length * graph.bytes_per_token, context_length)
    if _updates_in_place(session, graph):
        table = TableModel(session, graph, num_slots=slots, context_length=context_length)
        check_last_position(table, context_length)
        return table
    log.info("the graph in %s copies its cache in every step: sequences advance one after the other", path)
    model = GrowingModel(session, graph, num_slots=slots)
    try:
        model.prefill(0, [0], 0)
    except Exception as error:  # onnxruntime's errors have no common class but Exception
        raise ModelError(f"onnxruntime cannot run {path}: {first_line(error)}") from error
    return model


def _updates_in_place(session: onnxruntime.InferenceSession, graph: Graph) -> bool:
    """Whether the graph can write its cache where it reads it: two rows of different lengths show it."""
    texts = [[1, 2, 3, 4], [5, 6]]
    model = TableModel(session, graph, num_slots=2, context_length=16)
    try:
        for slot, ids in enumerate(texts):
            model.prefill(slot, ids[:-1], 0)
        together = model.decode([0, 1], [ids[-1] for ids in texts], [len(ids) - 1 for ids in texts])
        alone = np.concatenate([model.prefill(slot, ids, 0).copy() for slot, ids in enumerate(texts)])
    except Exception:  # noqa: BLE001  # onnxruntime's own: the present of such a graph is longer than its past
        return False
    return bool(np.abs(together - alone).max() <= 0.05 * (np.abs(alone).max() + 1e-6))
