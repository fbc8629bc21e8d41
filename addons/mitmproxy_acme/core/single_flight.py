"""Single flight: one piece of work for a key, and any number that wait for it.

This module knows tasks; it must not know what they do. The work goes on when everybody who waited has left.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Hashable
from typing import Any

from acme_storage import StorageError

from .errors import AcmeError

logger = logging.getLogger(__name__)


class SingleFlight[K: Hashable, T]:
    """The work under way, by key. Use it from one event loop."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._tasks: dict[K, asyncio.Task[T]] = {}
        self._begun: dict[K, float] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, key: K) -> bool:
        return key in self._tasks

    def get(self, key: K) -> asyncio.Future[T] | None:
        """Return what the work for ``key`` will return, if it is under way: to be awaited, or cancelled, at will."""
        task = self._tasks.get(key)
        return asyncio.shield(task) if task is not None else None

    def start(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """Return the task of the work for ``key``, starting it if it is not under way."""
        task = self._tasks.get(key)
        if task is None:
            # Started on the loop itself: the reference that must be kept is the one in the dict.
            task = asyncio.get_running_loop().create_task(work(), name=f"acme {self._what} {key}")
            self._tasks[key] = task
            self._begun[key] = time.monotonic()
            task.add_done_callback(lambda done: self._landed(key, done))
        return task

    async def join(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what the work for ``key`` returns, or raise what it raises; start it if it is not under way.

        Cancelling one that waits does not cancel the work.
        """
        return await asyncio.shield(self.start(key, work))

    def _landed(self, key: K, task: asyncio.Task[T]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key], self._begun[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            # Retrieved here, for those who waited may all have left; what is expected has been logged already.
            expected = isinstance(error, AcmeError | StorageError)
            level, trace = (logging.DEBUG, None) if expected else (logging.ERROR, error)
            logger.log(level, "%s %s ended with %r", self._what, key, error, exc_info=trace)

    def under_way(self) -> dict[K, float]:
        """Return what is under way, and for how many seconds."""
        now = time.monotonic()
        return {key: now - begun for key, begun in self._begun.items()}

    async def wait_idle(self) -> None:
        """Wait until nothing is under way."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def cancel(self) -> None:
        """Cancel what is under way, and wait until it has ended."""
        for task in self._tasks.values():
            task.cancel()
        await self.wait_idle()
