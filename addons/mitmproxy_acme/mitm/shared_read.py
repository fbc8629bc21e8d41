"""Looks: one read of the storage answers everybody who asks at about the same time.

This module knows when to look; it must not know what is looked for. Strangers ask as often as they like, so no question
costs a look of its own: at most one look runs, one more waits, and whoever asks joins the one that waits.
"""

import asyncio
from collections.abc import Awaitable, Callable

# Seconds between the end of a look and the next, or as long as the last one took: at any flood there are 20 a second at
# most, and storage is read half of the time at most.
REST = 0.05
# So many may wait at once, and for so many seconds: longer than any store takes to give up.
WAITING, PATIENCE = 1_000, 10.0


class SharedRead[T]:
    """The looks of one kind. Use it from one event loop."""

    def __init__(self, what: str, look: Callable[[], Awaitable[T]]) -> None:
        """``look`` is called when a look starts; what it raises is raised to all who wait for it."""
        self._what = what
        self._look = look
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[T] | None = None
        self._waiting = 0
        self._rested = 0.0

    async def join(self) -> T | None:
        """Return what a look finds that starts after this call; None where too many wait, or it takes too long.

        A look that runs already does not count: it may have missed what was published a moment ago.
        """
        if self._waiting >= WAITING:
            return None
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._run(), name=f"acme {self._what}")
        self._waiting += 1
        try:
            async with asyncio.timeout(PATIENCE):
                return await asyncio.shield(self._next)
        except TimeoutError:
            return None
        finally:
            self._waiting -= 1

    async def _run(self) -> T:
        async with self._turn:
            loop = asyncio.get_running_loop()
            await asyncio.sleep(max(self._rested - loop.time(), 0.0))
            self._next, begun = None, loop.time()
            try:
                return await self._look()
            finally:
                self._rested = loop.time() + max(REST, loop.time() - begun)
