"""Storage's health: said once when it goes, and once when it is back.

This module knows one probe; it must not know what storage is used for.
"""

import logging

from acme_storage import Storage, StorageError

from .threads import Threads

logger = logging.getLogger(__name__)

_PROBE_TTL = 60.0


class StorageHealth:
    """What this process knows of its storage. Use it from one event loop."""

    def __init__(self, storage: Storage, threads: Threads, node: str) -> None:
        self._storage = storage
        self._threads = threads
        self._probe = f"probes/{node}"
        self._down = False

    def trouble(self, error: StorageError) -> None:
        """Note that a call failed; the first of a row is logged."""
        if not self._down:
            logger.warning("storage is down, so nothing is ordered or renewed; what is in memory is served: %s", error)
        self._down = True

    async def look(self) -> bool:
        """While it is down, try a write: a full or read-only disk reads well. Say whether it has just come back."""
        if not self._down:
            return False
        try:
            await self._threads.storage(self._storage.put, self._probe, b"", ttl=_PROBE_TTL)
        except StorageError:
            return False
        self._down = False
        logger.warning("storage is back")
        return True
