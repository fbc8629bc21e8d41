"""One read of the storage answers all callers that ask at about the same time.

This module knows when to read; it must not know what is read. Strangers ask as often as they like, so a question never
costs a read of its own: at most one read runs and one waits, and callers join the one that waits.
"""

import asyncio
from collections.abc import Awaitable, Callable

# Seconds between the end of a read and the next; a slow read is followed by as long a pause as it took. So a flood
# causes at most 20 reads a second, and keeps the storage busy for half of the time at most.
PAUSE = 0.05
# So many callers may wait at once, and for so many seconds: longer than any store takes to give up.
MAX_WAITING, MAX_WAIT = 1_000, 10.0


class SharedRead[T]:
    """The reads of one kind. Use it from one event loop."""

    def __init__(self, what: str, read: Callable[[], Awaitable[T]]) -> None:
        """``read`` is called when a read starts; what it raises is raised to all callers that wait for it."""
        self._what = what
        self._read = read
        self._lock = asyncio.Lock()
        self._next: asyncio.Task[T] | None = None
        self._waiting = 0
        self._paused_until = 0.0

    async def join(self) -> T | None:
        """Return the result of a read that starts after this call; None if too many wait, or if it takes too long.

        A read that already runs does not count: it may have missed what was published a moment ago.
        """
        if self._waiting >= MAX_WAITING:
            return None
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._run(), name=f"acme {self._what}")
        self._waiting += 1
        try:
            async with asyncio.timeout(MAX_WAIT):
                return await asyncio.shield(self._next)
        except TimeoutError:
            return None
        finally:
            self._waiting -= 1

    async def _run(self) -> T:
        async with self._lock:
            loop = asyncio.get_running_loop()
            await asyncio.sleep(max(self._paused_until - loop.time(), 0.0))
            self._next, begun = None, loop.time()
            try:
                return await self._read()
            finally:
                self._paused_until = loop.time() + max(PAUSE, loop.time() - begun)
