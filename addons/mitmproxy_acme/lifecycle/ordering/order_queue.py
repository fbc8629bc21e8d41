"""Order queue: orders begin in order of arrival, a few at a time.

This module knows places in a queue and the loop; it must not know what is ordered.

Without it a burst of 1,000 unknown names works on all of its orders at once: all of them end late, all leases are
extended meanwhile, and a cached handshake waits behind the validations of all (p99 4 s; 16 ms with it: measured).
"""

import asyncio
from types import TracebackType
from typing import Self

# Fewer leave the process idle while each waits for the CA. More add no throughput where the CA answers at once, because
# the process uses a whole CPU then, and a cached handshake waits behind their threads. Measured with 1,000 names: four
# at once take 21 s (cached p99 15 ms), six 18 s (21 ms), eight 20 s (94 ms).
_AT_ONCE = 6
# Seconds. An order that takes longer waits for the CA and not for this process: the next one may begin.
_COUNTED_FOR = 1.0


class OrderQueue:
    """At most ``size`` orders begin within any ``counted_for`` seconds and are still under way; first in, first out.

    Use it from one event loop.
    """

    def __init__(self, size: int = _AT_ONCE, counted_for: float = _COUNTED_FOR) -> None:
        self._free = asyncio.Semaphore(size)
        self._counted_for = counted_for

    def place(self) -> "QueuePlace":
        """Return a place that is not entered yet; a ``with`` block leaves it at its end."""
        return QueuePlace(self._free, self._counted_for)


class QueuePlace:
    """One order's place. It may be left and entered again, at the end of the queue."""

    def __init__(self, free: asyncio.Semaphore, counted_for: float) -> None:
        self._free = free
        self._counted_for = counted_for
        self._timer: asyncio.TimerHandle | None = None

    async def enter(self) -> None:
        """Return when it is this order's turn. It must not be entered already."""
        await self._free.acquire()
        self._timer = asyncio.get_running_loop().call_later(self._counted_for, self.leave)

    def leave(self) -> None:
        """Let the next order begin; do nothing if this one no longer counts."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._free.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()
