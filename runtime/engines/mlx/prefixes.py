"""Prompt caches of sequences that have ended, for prompts that begin alike; the least recently used goes first."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..local.prefix import common_prefix
from . import caches
from .caches import Caches


@dataclass(eq=False)
class _Prefix:
    tokens: list[int]
    caches: Caches
    num_bytes: int


class Prefixes:
    """A list of caches, the latest last. ``most_bytes`` bounds what they hold together."""

    def __init__(self, most_bytes: int, most: int = 64) -> None:
        self.most_bytes = most_bytes
        self._most = most
        self._kept: list[_Prefix] = []

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def num_bytes(self) -> int:
        """Memory that is held now."""
        return sum(prefix.num_bytes for prefix in self._kept)

    def match(self, tokens: Sequence[int], limit: int) -> int:
        """How many tokens of the beginning ``take`` would find, at most ``limit``."""
        return max((self._usable(prefix, tokens, limit) for prefix in self._kept), default=0)

    def take(self, tokens: Sequence[int], limit: int) -> tuple[Caches | None, int]:
        """A cache of the longest known beginning, to go on with, and its length. What was kept stays kept."""
        best = max(self._kept, key=lambda prefix: self._usable(prefix, tokens, limit), default=None)
        shared = self._usable(best, tokens, limit) if best else 0
        if best is None or not shared:
            return None, 0
        self._kept.remove(best)
        self._kept.append(best)
        return caches.trimmed(caches.clone(best.caches), len(best.tokens), shared), shared

    def keep(self, tokens: list[int], kept: Caches) -> None:
        """Keep a cache that holds exactly these tokens, unless a longer one has them. What it makes useless goes."""
        if not tokens or self._has(tokens):
            return
        can_trim = caches.can_trim(kept)
        self._kept = [old for old in self._kept if not (can_trim and tokens[: len(old.tokens)] == old.tokens)]
        self._kept.append(_Prefix(tokens, kept, caches.num_bytes(kept)))
        self.shrink(self.most_bytes)

    def shrink(self, most_bytes: int) -> None:
        """Let the oldest go until no more than this is held."""
        while self._kept and (self.num_bytes > most_bytes or len(self._kept) > self._most):
            self._kept.pop(0)

    def _has(self, tokens: list[int]) -> bool:
        """Whether a kept cache holds these tokens already; it then counts as used."""
        for prefix in self._kept:
            if self._usable(prefix, tokens, len(tokens)) == len(tokens):
                self._kept.remove(prefix)
                self._kept.append(prefix)
                return True
        return False

    def _usable(self, prefix: _Prefix, tokens: Sequence[int], limit: int) -> int:
        """How many tokens from the beginning can be had from a cache: all that are shared, if it can be cut there."""
        shared = common_prefix(prefix.tokens, 0, tokens, 0, limit)
        return shared if shared == len(prefix.tokens) or caches.can_trim(prefix.caches) else 0
