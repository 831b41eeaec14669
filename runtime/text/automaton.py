"""Many byte strings searched at once: Aho and Corasick's automaton (CACM 18(6), 1975)."""

from collections import deque
from collections.abc import Iterable
from functools import lru_cache


class Automaton:
    """A trie of patterns with failure links. States are integers; 0 is the root.

    ``depth[state]`` is the length of the longest pattern prefix that is a suffix of the bytes read; ``longest[state]``
    the longest pattern that ends there, or None; ``can_grow[state]`` whether some pattern continues from it.
    """

    def __init__(self, patterns: Iterable[bytes]) -> None:
        self.edges: list[dict[int, int]] = [{}]
        self.depth = [0]
        self.longest: list[bytes | None] = [None]
        self.fail = [0]
        for pattern in patterns:
            self._insert(pattern)
        self._link()
        self.can_grow = [bool(edges) for edges in self.edges]

    def step(self, state: int, byte: int) -> int:
        """The state after one more byte. Amortised O(1): a failure link is never followed twice for a byte gained."""
        while (target := self.edges[state].get(byte)) is None:
            if state == 0:
                return 0
            state = self.fail[state]
        return target

    def _insert(self, pattern: bytes) -> None:
        state = 0
        for byte in pattern:
            if byte not in self.edges[state]:
                self.edges[state][byte] = len(self.edges)
                self.edges.append({})
                self.depth.append(self.depth[state] + 1)
                self.longest.append(None)
                self.fail.append(0)
            state = self.edges[state][byte]
        self.longest[state] = pattern

    def _link(self) -> None:
        queue = deque(self.edges[0].values())
        while queue:
            state = queue.popleft()
            self.longest[state] = self.longest[state] or self.longest[self.fail[state]]
            for byte, target in self.edges[state].items():
                self.fail[target] = self.step(self.fail[state], byte)
                queue.append(target)


@lru_cache(maxsize=256)
def automaton(patterns: frozenset[bytes]) -> Automaton:
    """The automaton of a set of patterns, kept for the next request that brings the same."""
    return Automaton(sorted(patterns))
