"""The token inputs of one run: ids, which cells each row sees, and where its new tokens are."""

from collections.abc import Sequence

import numpy as np

from .graph import Graph


def token_feeds(graph: Graph, ids: Sequence[Sequence[int]], starts: Sequence[int]) -> dict[str, np.ndarray]:
    """Inputs for rows of equally many new ``ids``, each behind ``starts`` cells of its own.

    The mask has ones for the cells of a row and zeros up to the longest; graphs count them to know its length.
    """
    num_new = len(ids[0])
    ends = np.array([start + num_new for start in starts])
    made = {
        "input_ids": np.array(ids),
        "attention_mask": np.arange(ends.max()) < ends[:, None],
        "position_ids": np.array(starts)[:, None] + np.arange(num_new),
    }
    return {name: np.ascontiguousarray(made[name], dtype) for name, dtype in graph.inputs.items()}


def rows_at_once(graph: Graph, *, all_rows: bool) -> int:
    """Tokens of a prompt in one run: where all their logits are computed, these are to stay below 64 MiB."""
    if all_rows and not graph.gives_all_rows:
        return 1
    if graph.gives_all_rows and (all_rows or not graph.can_give_last):
        return max(32, 2**26 // (4 * graph.vocab_size))
    return 512
