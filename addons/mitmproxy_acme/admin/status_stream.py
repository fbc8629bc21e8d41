"""Documents, sent to each watcher as soon as they change.

This module knows watchers and how often to read; it must not know what the documents say, or how they travel.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from .documents import Document

_READ_EVERY = 1.0
_MOST_WATCHERS, _MOST_PER_CLIENT = 64, 16


class TooManyWatchers(Exception):
    """No further watcher is admitted."""


class Watcher:
    """The documents that one ``client`` has not read yet, by their names: of each the last."""

    def __init__(self, client: str) -> None:
        self.client = client
        self._unread: dict[str, str] = {}
        self._woken = asyncio.Event()

    def begin(self, documents: Mapping[str, str]) -> None:
        """Leave all of these unread, in this order."""
        self._unread = dict(documents)
        self._woken.set()

    def put(self, name: str, text: str) -> None:
        self._unread[name] = text
        self._woken.set()

    def empty(self) -> bool:
        return not self._unread

    async def get(self) -> tuple[str, str]:
        """Wait for a change, and return a document's name and its JSON."""
        while not self._unread:
            self._woken.clear()
            await self._woken.wait()
        name = next(iter(self._unread))
        return name, self._unread.pop(name)


class StatusStream:
    """Reads once a second for any number of watchers, and not at all without any. Use it from one event loop."""

    def __init__(self, read: Callable[[], Awaitable[Mapping[str, Document]]]) -> None:
        """``read`` returns the documents by their names."""
        self._read = read
        self._watchers: list[Watcher] = []
        self._reading: asyncio.Task[None] | None = None
        self._last: dict[str, str] = {}

    @contextlib.asynccontextmanager
    async def watch(self, client: str = "") -> AsyncIterator[Watcher]:
        """Yield a watcher that receives each document: now, and at each of its changes.

        A slow reader misses intermediate changes, never the last. Raises ``TooManyWatchers`` if too many watch in all,
        or for this ``client``; an empty one is not counted by itself.
        """
        same = sum(watcher.client == client for watcher in self._watchers) if client else 0
        if len(self._watchers) >= _MOST_WATCHERS or same >= _MOST_PER_CLIENT:
            raise TooManyWatchers
        watcher = Watcher(client)
        self._watchers.append(watcher)
        try:
            await self._update()
            watcher.begin(self._last)
            if self._reading is None:
                self._reading = asyncio.get_running_loop().create_task(self._follow(), name="acme status stream")
            yield watcher
        finally:
            self._watchers.remove(watcher)
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
        """Read, and send the changes to all watchers."""
        for name, document in (await self._read()).items():
            text = json.dumps(document)
            if text != self._last.get(name):
                self._last[name] = text
                for watcher in self._watchers:
                    watcher.put(name, text)
