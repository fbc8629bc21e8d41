"""The status document, sent to each watcher as soon as it changes.

This module knows watchers and the rhythm of looking; it must not know what is looked at, nor how it travels.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable

from .documents import Document

_LOOK_EVERY = 1.0
_MOST_WATCHERS, _MOST_OF_A_CLIENT = 64, 16


class TooManyWatchers(Exception):
    """So many watch that one more is not served."""


class StatusStream:
    """One look a second, for any number of watchers; none where nobody watches. Use it from one event loop."""

    def __init__(self, look: Callable[[], Awaitable[Document]]) -> None:
        self._look = look
        self._watchers: dict[asyncio.Queue[str], str] = {}  # and of which client each is
        self._looking: asyncio.Task[None] | None = None
        self._last = ""

    @contextlib.asynccontextmanager
    async def watch(self, client: str = "") -> AsyncIterator[asyncio.Queue[str]]:
        """Yield a queue that receives the status as JSON: now, and at each change.

        A slow reader misses some, never the last. Raises ``TooManyWatchers``: in all, or of one ``client`` that is
        named.
        """
        same = list(self._watchers.values()).count(client) if client else 0
        if len(self._watchers) >= _MOST_WATCHERS or same >= _MOST_OF_A_CLIENT:
            raise TooManyWatchers
        queue: asyncio.Queue[str] = asyncio.Queue(1)
        self._watchers[queue] = client
        try:
            await self._look_again()
            self._put(queue, self._last)
            if self._looking is None:
                self._looking = asyncio.get_running_loop().create_task(self._follow(), name="acme live")
            yield queue
        finally:
            del self._watchers[queue]
            if not self._watchers:
                self.close()

    def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            await self._look_again()

    async def _look_again(self) -> None:
        """Look, and tell all who watch of a change, whoever's look has found it."""
        now = json.dumps(await self._look())
        if now != self._last:
            self._last = now
            for queue in self._watchers:
                self._put(queue, now)

    def _put(self, queue: asyncio.Queue[str], text: str) -> None:
        if queue.full():
            queue.get_nowait()
        queue.put_nowait(text)
