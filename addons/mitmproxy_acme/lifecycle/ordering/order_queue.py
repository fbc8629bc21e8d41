"""Order queue: orders begin in order of arrival, a few at a time.

This module knows places in a queue and the loop; it must not know what is ordered.

Without it a burst of 1,000 unknown names works on all of its orders at once: all of them end late, all leases are
extended meanwhile, and a cached handshake waits behind the validations of all (p99 4 s; 16 ms with it: measured).
"""

import asyncio
from collections import OrderedDict
from collections.abc import Hashable
from types import TracebackType
from typing import Self

# Fewer leave the process idle while each waits for the CA. More add no throughput where the CA answers at once, because
# the process uses a whole CPU then, and a cached handshake waits behind their threads. Measured with 1,000 names: four
# at once take 21 s (cached p99 15 ms), six 18 s (21 ms), eight 20 s (94 ms).
_AT_ONCE = 6
# Seconds. An order that takes longer waits for the CA and not for this process: the next one may begin.
_COUNTED_FOR = 1.0


class OrderQueue[K: Hashable]:
    """At most ``size`` orders begin within any ``counted_for`` seconds and are still under way; first in, first out.

    Use it from one event loop.
    """

    def __init__(self, size: int = _AT_ONCE, counted_for: float = _COUNTED_FOR) -> None:
        self._free = size
        self._counted_for = counted_for
        self._waiting: OrderedDict[K, asyncio.Future[None]] = OrderedDict()

    def place(self, key: K) -> "QueuePlace[K]":
        """Return a place that is not entered yet; a ``with`` block leaves it at its end.

        At most one place waits for a key at a time.
        """
        return QueuePlace(self, key, self._counted_for)

    def hurry(self, key: K) -> None:
        """Let the order for ``key`` begin next, if it is waiting."""
        if key in self._waiting:
            self._waiting.move_to_end(key, last=False)

    async def acquire(self, key: K) -> None:
        """Return when the order for ``key`` may begin."""
        if self._free:
            self._free -= 1
            return
        turn = self._waiting[key] = asyncio.get_running_loop().create_future()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting.pop(key, None)
            else:  # its turn has come in the same moment
                self.release()
            raise

    def release(self) -> None:
        """Let the next order begin."""
        while self._waiting:
            _, turn = self._waiting.popitem(last=False)
            if not turn.cancelled():
                turn.set_result(None)
                return
        self._free += 1


class QueuePlace[K: Hashable]:
    """One order's place. It may be left and entered again, at the end of the queue."""

    def __init__(self, queue: OrderQueue[K], key: K, counted_for: float) -> None:
        self._queue = queue
        self._key = key
        self._counted_for = counted_for
        self._timer: asyncio.TimerHandle | None = None

    async def enter(self) -> None:
        """Return when it is this order's turn. It must not be entered already."""
        await self._queue.acquire(self._key)
        self._timer = asyncio.get_running_loop().call_later(self._counted_for, self.leave)

    def leave(self) -> None:
        """Let the next order begin; do nothing if this one no longer counts."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._queue.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()
