"""What a backward pass can know of the graph that it goes through."""

import torch


def is_graph_kept() -> bool:
    """Within a backward pass: whether another one may follow. Yes, if this torch does not tell."""
    is_kept = getattr(getattr(torch._C, "_autograd", None), "_get_current_graph_task_keep_graph", None)
    return is_kept is None or is_kept()
