"""Storage health: logged once when the storage goes down, and once when it is back.

This module knows one probe; it must not know what storage is used for.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from acme_storage import Storage, StorageError, StorageUnavailable

from ..core.structured_logging import fields
from ..core.thread_pools import ThreadPools
from ..store.keys import probe_key

logger = logging.getLogger(__name__)

_PROBE_TTL = 60.0
_CHECK_AGAIN = 1.0


class StorageHealth:
    """What this process knows of its storage. Use it from one event loop.

    ``ClusterSync`` checks it soon after trouble, and every second until it is back.
    """

    def __init__(self, storage: Storage, threads: ThreadPools, node: str) -> None:
        self._storage = storage
        self._threads = threads
        self._node = node
        self._probe = probe_key(node)
        self._down: StorageError | None = None
        self._down_since = 0.0
        self._readable = True
        self._troubled = asyncio.Event()

    @property
    def trouble_now(self) -> str | None:
        """What is wrong while storage is down; None while it works."""
        return str(self._down) if self._down is not None else None

    def trouble(self, error: StorageError) -> None:
        """Note that a call failed; the first of several in a row is logged."""
        if self._down is None:
            logger.warning(
                "storage is down, so nothing is ordered or renewed; what is in memory is served: %s (node %s)",
                error,
                self._node,
                extra=fields("storage_down", node=self._node, reason=str(error)),
            )
            self._down, self._down_since = error, time.monotonic()
        self._troubled.set()

    def require(self) -> None:
        """Raise ``StorageUnavailable`` at once while storage is known to be unreadable.

        Each call to a silent store takes a thread for two seconds: strangers must not occupy all of them.
        """
        if self._down is not None and not self._readable:
            raise StorageUnavailable(f"storage is down: {self._down}")

    async def rest(self, seconds: float) -> None:
        """Wait so long, or until a call fails; one second while storage is down."""
        if self._down is not None:
            await asyncio.sleep(min(seconds, _CHECK_AGAIN))
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._troubled.wait(), seconds)

    async def check(self) -> bool:
        """While storage is down, try to read and to write: a full or read-only disk can be read.

        Say whether it has just come back.
        """
        if self._down is None:
            return False
        self._readable = await self._works(self._storage.get, self._probe)
        if not (self._readable and await self._works(self._storage.put, self._probe, b"", ttl=_PROBE_TTL)):
            return False
        self._down = None
        self._troubled.clear()
        seconds = time.monotonic() - self._down_since
        logger.warning(
            "storage is back after %.1f s (node %s)",
            seconds,
            self._node,
            extra=fields("storage_up", node=self._node, seconds=round(seconds, 1)),
        )
        return True

    async def _works[**P](self, call: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> bool:
        try:
            await self._threads.storage(call, *args, **kwargs)
        except StorageError:
            return False
        return True
