"""OpenAssistant's trees of conversations, and the best path through each.

A tree is a question with answers, each with further questions, and so on. Published in two forms: one tree a row
(``prompt`` with ``replies``), and one message a row (``message_id``, ``parent_id``, ``role``, ``text``, ``rank``).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .examples import Message, Unusable

_ROLES = {"prompter": "user", "assistant": "assistant"}


def is_message(row: Mapping[str, Any]) -> bool:
    """Whether a row is a single message."""
    return {"parent_id", "role", "text"} <= row.keys()


def grow_trees(rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Single messages as trees, in the order of their roots, behind all other rows, which stay as they are."""
    roots: list[dict[str, Any]] = []
    replies: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if not is_message(row):
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
    message, path, seen = tree.get("prompt"), [], set[int]()
    while isinstance(message, Mapping):
        if id(message) in seen:
            raise Unusable("its messages answer each other in a circle")
        seen.add(id(message))
        path.append({"role": _ROLES.get(str(message.get("role"))), "content": message.get("text")})
        message = _best(message.get("replies"))
    while path and path[-1]["role"] != "assistant":
        path.pop()
    if not path:
        raise Unusable("nobody answered")
    if any(
        turn["role"] is None or not isinstance(turn["content"], str) or not turn["content"].strip() for turn in path
    ):
        raise Unusable("a message has no text or no known role")
    return path


def _best(replies: object) -> Mapping[str, Any] | None:
    if not isinstance(replies, list):
        return None
    kept = [reply for reply in replies if isinstance(reply, Mapping) and not reply.get("deleted")]
    return min(kept, key=_rank, default=None)


def _rank(reply: Mapping[str, Any]) -> float:
    rank = reply.get("rank")
    if rank is not None and not isinstance(rank, int | float):
        raise Unusable(f"a reply has the rank {rank!r}")
    return float("inf") if rank is None else rank
