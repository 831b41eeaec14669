"""Prefixes kept outside the cache, in ordinary memory.

A cell that nobody reads still costs every step: attention walks over all cells and skips the foreign ones. With 7,000
idle cells a decode step of the demo model takes 1.3 times as long (measured on two cores). So prefixes that nobody
uses now are copied out, and back when a prompt begins with them: copying a token is some hundred times cheaper than
computing it.
"""

from dataclasses import dataclass

import numpy as np

from ..local.prefix import common_prefix


@dataclass(slots=True, eq=False)
class ParkedPrefix:
    """A prefix's tokens and what llama.cpp wrote for them."""

    tokens: list[int]
    state: np.ndarray


class ParkedPrefixes:
    """The prefixes, the longest unused first; at most ``most_tokens`` tokens of them."""

    def __init__(self, most_tokens: int) -> None:
        self._most_tokens = most_tokens
        self._prefixes: list[ParkedPrefix] = []

    def __len__(self) -> int:
        return len(self._prefixes)

    @property
    def num_tokens(self) -> int:
        """Tokens of all prefixes."""
        return sum(len(prefix.tokens) for prefix in self._prefixes)

    def has_place_for(self, num_tokens: int) -> bool:
        """Whether a prefix of so many tokens can be kept at all."""
        return num_tokens <= self._most_tokens

    def add(self, prefix: ParkedPrefix) -> None:
        """Keep a prefix; those that it contains go, and then the longest unused until all fit."""
        self._prefixes = [old for old in self._prefixes if old.tokens != prefix.tokens[: len(old.tokens)]]
        self._prefixes.append(prefix)
        while self.num_tokens > self._most_tokens:
            self._prefixes.pop(0)

    def match(self, ids: list[int], limit: int) -> tuple[int, ParkedPrefix | None]:
        """How many of the first ``limit`` ids the best prefix has, and that prefix."""
        best, found = 0, None
        for prefix in self._prefixes:
            length = common_prefix(prefix.tokens, 0, ids, 0, limit)
            if length > best:
                best, found = length, prefix
        return best, found

    def use(self, prefix: ParkedPrefix, length: int) -> None:
        """Its first ``length`` tokens were copied back. Wholly used it goes, else it is the latest."""
        if prefix in self._prefixes:
            self._prefixes.remove(prefix)
            if length < len(prefix.tokens):
                self._prefixes.append(prefix)
