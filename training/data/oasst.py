"""OpenAssistant's trees of conversations, and the best path through each.

A tree is a question with answers, each with further questions, and so on. Published in two forms: one tree a row
(``prompt`` with ``replies``), and one message a row (``message_id``, ``parent_id``, ``role``, ``text``, ``rank``).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .examples import Message, Unusable

_ROLES = {"prompter": "user", "assistant": "assistant"}


def grow_trees(rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Single messages as trees, in the order of their roots; rows that are trees stay as they are."""
    roots: list[dict[str, Any]] = []
    replies: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if isinstance(row.get("prompt"), Mapping):
            yield row
            continue
        message = {**row, "replies": replies[str(row.get("message_id"))]}
        if row.get("parent_id") is None:
            roots.append(message)
        else:
            replies[str(row["parent_id"])].append(message)
    yield from ({"prompt": root} for root in roots)


def tree_conversation(tree: Mapping[str, Any]) -> list[Message]:
    """From the root down, always to the reply that people ranked best, the first one where there is no rank. Ends with
    an answer. Unusable where nobody answered."""
    message, path = tree.get("prompt"), []
    while isinstance(message, Mapping):
        path.append({"role": _ROLES.get(str(message.get("role"))), "content": message.get("text")})
        message = _best(message.get("replies") or [])
    while path and path[-1]["role"] != "assistant":
        path.pop()
    if not path:
        raise Unusable("nobody answered")
    if any(
        turn["role"] is None or not isinstance(turn["content"], str) or not turn["content"].strip() for turn in path
    ):
        raise Unusable("a message has no text or no known role")
    return path


def _best(replies: list[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    kept = [reply for reply in replies if not reply.get("deleted")]
    return min(kept, key=_rank, default=None)


def _rank(reply: Mapping[str, Any]) -> float:
    rank = reply.get("rank")
    return float(rank) if rank is not None else float("inf")
