"""The status document, sent to each watcher as soon as it changes.

This module knows watchers and how often to read; it must not know what the document says, or how it travels.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable

from .documents import Document

_READ_EVERY = 1.0
_MOST_WATCHERS, _MOST_PER_CLIENT = 64, 16


class TooManyWatchers(Exception):
    """No further watcher is admitted."""


class StatusStream:
    """Reads once a second for any number of watchers, and not at all without any. Use it from one event loop."""

    def __init__(self, read: Callable[[], Awaitable[Document]]) -> None:
        self._read = read
        self._watchers: dict[asyncio.Queue[str], str] = {}  # and the client of each
        self._reading: asyncio.Task[None] | None = None
        self._last = ""

    @contextlib.asynccontextmanager
    async def watch(self, client: str = "") -> AsyncIterator[asyncio.Queue[str]]:
        """Yield a queue that receives the status as JSON: now, and at each change.

        A slow reader misses intermediate changes, never the last. Raises ``TooManyWatchers`` if too many watch in all,
        or for this ``client``; an empty one is not counted by itself.
        """
        same = list(self._watchers.values()).count(client) if client else 0
        if len(self._watchers) >= _MOST_WATCHERS or same >= _MOST_PER_CLIENT:
            raise TooManyWatchers
        queue: asyncio.Queue[str] = asyncio.Queue(1)
        self._watchers[queue] = client
        try:
            await self._update()
            self._put(queue, self._last)
            if self._reading is None:
                self._reading = asyncio.get_running_loop().create_task(self._follow(), name="acme status stream")
            yield queue
        finally:
            del self._watchers[queue]
            if not self._watchers:
                self.close()

    def close(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_READ_EVERY)
            await self._update()

    async def _update(self) -> None:
        """Read, and send a change to all watchers."""
        status = json.dumps(await self._read())
        if status != self._last:
            self._last = status
            for queue in self._watchers:
                self._put(queue, status)

    def _put(self, queue: asyncio.Queue[str], text: str) -> None:
        if queue.full():
            queue.get_nowait()
        queue.put_nowait(text)
