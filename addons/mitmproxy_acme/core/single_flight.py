"""Single flight: one task per key, with any number of callers waiting for it.

This module knows tasks; it must not know what they do. A task goes on even if all callers have left.
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
    """The running tasks by key. Use it from one event loop."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._tasks: dict[K, asyncio.Task[T]] = {}
        self._begun: dict[K, float] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, key: K) -> bool:
        return key in self._tasks

    def get(self, key: K) -> asyncio.Future[T] | None:
        """Return a future of the running task for ``key``, if any; cancelling the future does not cancel the task."""
        task = self._tasks.get(key)
        return asyncio.shield(task) if task is not None else None

    def start(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """Return the task for ``key``, starting it if it is not running."""
        task = self._tasks.get(key)
        if task is None:
            # Created on the loop itself: the dict keeps the reference that it needs.
            task = asyncio.get_running_loop().create_task(work(), name=f"acme {self._what} {key}")
            self._tasks[key] = task
            self._begun[key] = time.monotonic()
            task.add_done_callback(lambda done: self._finished(key, done))
        return task

    async def join(self, key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what the task for ``key`` returns, or raise what it raises; start it if it is not running.

        Cancelling a caller does not cancel the task.
        """
        return await asyncio.shield(self.start(key, work))

    def _finished(self, key: K, task: asyncio.Task[T]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key], self._begun[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            # Retrieved here because all callers may have left; expected errors have been logged already.
            expected = isinstance(error, AcmeError | StorageError)
            level, trace = (logging.DEBUG, None) if expected else (logging.ERROR, error)
            logger.log(level, "%s %s ended with %r", self._what, key, error, exc_info=trace)

    def under_way(self) -> dict[K, float]:
        """Return the keys of the running tasks, and for how many seconds each has run."""
        now = time.monotonic()
        return {key: now - begun for key, begun in self._begun.items()}

    async def wait_idle(self) -> None:
        """Wait until no task is running."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def cancel(self) -> None:
        """Cancel all tasks and wait until they have ended."""
        for task in self._tasks.values():
            task.cancel()
        await self.wait_idle()
