"""The servers of one model: who is up, who has how much to do, and who has seen which prompt."""

import logging
import time
from collections import OrderedDict
from collections.abc import Collection, Sequence
from itertools import islice

from .address import Address
from .exchange import Connection, connect

log = logging.getLogger(__name__)

BLOCK = 64
"""Prompts are compared by blocks of so many tokens; a shorter common beginning is not worth a detour."""
_MOST_BLOCKS = 1 << 16
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_MOST_IDLE = 16


class Server:
    """One vLLM. ``num_open`` requests of ours are with it. ``is_checked`` when it is known to have our model."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.num_open = 0
        self.num_taken = 0
        self.is_checked = False
        self.retry_at_s = 0.0
        self._num_failures = 0
        self._idle: list[Connection] = []
        self._blocks: OrderedDict[int, None] = OrderedDict()

    @property
    def is_up(self) -> bool:
        """Whether it is worth trying: it answered last time, or its pause is over."""
        return time.monotonic() >= self.retry_at_s

    async def connection(self, timeout_s: float) -> tuple[Connection, bool]:
        """A connection that is free for a request, and whether it was kept from another. Raises LostConnection."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_free:
                return connection, True
        return await connect(self.address, timeout_s), False

    def give_back(self, connection: Connection) -> None:
        """Keep a connection for the next request, when it can take one."""
        if connection.is_free and len(self._idle) < _MOST_IDLE:
            self._idle.append(connection)
        else:
            connection.close()

    def failed(self, reason: object) -> None:
        """Leave it out for a while, longer each time, and check its model again: it may come back as another."""
        pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(self._num_failures, 16))
        if self._num_failures == 0:
            log.warning("vLLM at %s: %s; it is left out and tried again", self.address, reason)
        self._num_failures += 1
        self.retry_at_s = time.monotonic() + pause
        self.is_checked = False
        self.forget_connections()
        self._blocks.clear()

    def answered(self) -> None:
        """It works."""
        if self._num_failures:
            log.info("vLLM at %s answers again", self.address)
        self._num_failures = 0
        self.retry_at_s = 0.0

    def forget_connections(self) -> None:
        """Close those that wait for a request."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def num_known(self, blocks: Sequence[int]) -> int:
        """How many of a prompt's blocks, from its beginning, it has been sent before."""
        return next((index for index, block in enumerate(blocks) if block not in self._blocks), len(blocks))

    def remember(self, blocks: Sequence[int]) -> None:
        """It is being sent a prompt."""
        for block in reversed(blocks):  # a beginning outlives what follows it
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        for block in list(islice(self._blocks, max(0, len(self._blocks) - _MOST_BLOCKS))):
            del self._blocks[block]


class Servers:
    """Chooses a server for each request."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self.all = [Server(address) for address in addresses]

    def anew(self) -> "Servers":
        """The same for another event loop: what is known of them, without connections and requests."""
        copy = Servers([server.address for server in self.all])
        for old, new in zip(self.all, copy.all, strict=True):
            new.is_checked, new.retry_at_s = old.is_checked, old.retry_at_s
        return copy

    def blocks(self, prompt: Sequence[int]) -> list[int]:
        """The prompt's beginnings, one value each; nothing where there is no choice."""
        if len(self.all) == 1:
            return []
        found, so_far = [], 0
        for start in range(0, len(prompt) - BLOCK + 1, BLOCK):
            so_far = hash((so_far, *prompt[start : start + BLOCK]))
            found.append(so_far)
        return found

    def choose(self, blocks: Sequence[int], tried: Collection[Server]) -> Server | None:
        """The server that knows most of the prompt, unless it is much busier than the least busy; else that one.

        One that is down is not chosen while another is up. None when all have been ``tried``.
        """
        left = [server for server in self.all if server not in tried]
        if not left:
            return None
        up = [server for server in left if server.is_up] or [min(left, key=lambda server: server.retry_at_s)]
        least = min(up, key=lambda server: (server.num_open, server.num_taken))
        known = max(up, key=lambda server: (server.num_known(blocks), -server.num_open, -server.num_taken))
        if known.num_known(blocks) and known.num_open <= _much(least.num_open):
            return known
        return least

    def close(self) -> None:
        for server in self.all:
            server.forget_connections()


def _much(num_open: int) -> int:
    """Up to how many open requests a known prompt outweighs, where another server has ``num_open``."""
    return num_open + max(4, num_open // 2)
