"""Which sequences hold which token prefixes in the cache: a radix tree over token ids.

A path from the root spells tokens whose keys and values are in the cache. Every node knows its *holders*, the
sequences that own its cells. Sequences that share a prefix share its cells, so the sum of the edge lengths is the
number of cells in use. The idea is SGLang's RadixAttention (arXiv 2312.07104, section 3), on llama.cpp's sequence ids.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..local.prefix import common_prefix


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Tokens [start, end) of a sequence that ``owner`` had in the cache already: the cells can be shared."""

    start: int
    end: int
    owner: int


@dataclass(slots=True, eq=False)
class _Node:
    tokens: list[int]
    parent: "_Node | None"
    holders: set[int]
    children: "dict[int, _Node]" = field(default_factory=dict)


class PrefixTree:
    """Token prefixes in the cache and the sequences that hold them. Pure bookkeeping: it never touches the cache."""

    def __init__(self) -> None:
        self._root = _Node([], None, set())
        self._ends: dict[int, _Node] = {}
        self._lengths: dict[int, int] = {}
        self.num_cells = 0
        """Distinct cells that the registered prefixes occupy."""

    def __contains__(self, seq_id: int) -> bool:
        return seq_id in self._ends

    def length(self, seq_id: int) -> int:
        """Number of tokens registered for a sequence; 0 when it is unknown."""
        return self._lengths.get(seq_id, 0)

    def match(self, ids: Sequence[int], limit: int, among: set[int] | None = None) -> tuple[int, int | None]:
        """Length of the longest cached prefix of ``ids[:limit]``, and a sequence that holds it.

        With ``among``, only prefixes that one of these sequences holds count.
        """
        node, depth, owner = self._root, 0, None
        while depth < limit and (child := node.children.get(ids[depth])) is not None:
            if among is not None and child.holders.isdisjoint(among):
                break
            same = common_prefix(child.tokens, 0, ids, depth, limit - depth)
            depth += same
            owner = next(iter(child.holders))
            if same < len(child.tokens):
                break
            node = child
        return depth, owner

    def share(self, seq_id: int, ids: Sequence[int], length: int) -> None:
        """Register a new sequence as one more holder of the cached prefix ``ids[:length]``."""
        self._walk(seq_id, ids, length)

    def extend(self, seq_id: int, ids: Sequence[int], length: int) -> list[Duplicate]:
        """Register that the sequence now holds cells for ``ids[:length]``.

        Returns the ranges that another sequence had computed too. The caller should give up the sequence's own
        cells there and share the owner's: the tree counts them once.
        """
        return self._walk(seq_id, ids, length)

    def remove(self, seq_id: int) -> None:
        """Forget a sequence; nodes that nobody else holds go."""
        node = self._ends.pop(seq_id, None)
        self._lengths.pop(seq_id, None)
        while node is not None and node.parent is not None:
            node.holders.discard(seq_id)
            parent = node.parent
            if not node.holders:
                del parent.children[node.tokens[0]]
                self.num_cells -= len(node.tokens)
            node = parent

    def is_covered(self, seq_id: int, others: set[int]) -> bool:
        """Whether one of ``others`` holds everything that this sequence holds."""
        end = self._ends[seq_id]
        return end is self._root or any(other in end.holders for other in others if other != seq_id)

    def cells_held_by(self, seq_ids: set[int]) -> int:
        """Distinct cells that at least one of the sequences holds."""
        cells, stack = 0, [self._root]
        while stack:
            for child in stack.pop().children.values():
                if not child.holders.isdisjoint(seq_ids):
                    cells += len(child.tokens)
                    stack.append(child)
        return cells

    def exclusive_cells(self, seq_id: int, others: set[int]) -> int:
        """Cells of the sequence that none of ``others`` holds."""
        path = self._path(self._ends[seq_id])
        return sum(len(node.tokens) for node in path if node.holders.isdisjoint(others))

    def tokens(self, seq_id: int) -> list[int]:
        """The token ids registered for a sequence."""
        edges = [node.tokens for node in self._path(self._ends[seq_id])]
        return [token for edge in reversed(edges) for token in edge]

    def _path(self, node: _Node) -> Iterator[_Node]:
        while node.parent is not None:
            yield node
            node = node.parent

    def _walk(self, seq_id: int, ids: Sequence[int], length: int) -> list[Duplicate]:
        node = self._ends.get(seq_id, self._root)
        depth = self._lengths.get(seq_id, 0)
        duplicates: list[Duplicate] = []
        while depth < length:
            if self._grows_in_place(node, seq_id):
                node.tokens.extend(ids[depth:length])
                self.num_cells += length - depth
                break
            child = node.children.get(ids[depth])
            if child is None:
                node = self._add_child(node, list(ids[depth:length]), {seq_id})
                self.num_cells += length - depth
                break
            same = common_prefix(child.tokens, 0, ids, depth, length - depth)
            if same < len(child.tokens):
                child = self._split(child, same)
            duplicates.append(Duplicate(depth, depth + same, next(iter(child.holders))))
            child.holders.add(seq_id)
            node, depth = child, depth + same
        self._ends[seq_id] = node
        self._lengths[seq_id] = max(length, self._lengths.get(seq_id, 0))
        return duplicates

    def _grows_in_place(self, node: _Node, seq_id: int) -> bool:
        return node.parent is not None and not node.children and node.holders == {seq_id}

    def _add_child(self, parent: _Node, tokens: list[int], holders: set[int]) -> _Node:
        child = _Node(tokens, parent, holders)
        parent.children[tokens[0]] = child
        return child

    def _split(self, node: _Node, at: int) -> _Node:
        """Cut an edge in two and return the upper part; sequences that end at ``node`` still end at the lower."""
        assert node.parent is not None
        upper = self._add_child(node.parent, node.tokens[:at], set(node.holders))
        node.tokens = node.tokens[at:]
        node.parent = upper
        upper.children[node.tokens[0]] = node
        return upper
