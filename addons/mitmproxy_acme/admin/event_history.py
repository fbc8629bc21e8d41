"""The last hundred events of all nodes: this node's from memory, the others' from the storage.

This module knows when to read; it must not know who asks. It reads only when it is asked: while no page is open, other
nodes' events cost nothing.
"""

import asyncio
import logging
from collections.abc import Mapping

from acme_storage import StorageError

from ..core.single_flight import SingleFlight
from ..lifecycle.manager import Manager
from ..store.event_log import LoggedEvent, newest

logger = logging.getLogger(__name__)

# Seconds. A page asks every second; a storage that falls silent must not delay it for longer.
_HOLDS, _WITHIN = 3.0, 1.0


class EventHistory:
    """Use it from the manager's loop; any number of readers share one reading."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._readings: SingleFlight[str, None] = SingleFlight("event history")
        self._stored: Mapping[str, LoggedEvent | None] = {}
        self._read_at: float | None = None

    def known(self) -> list[LoggedEvent]:
        """Return what happened, the newest first: this node's events, and the others' as they were last read."""
        return newest([*self._manager.recorder.recent, *self._stored.values()])

    async def read(self) -> list[LoggedEvent]:
        """Return what happened, the newest first; while the storage is down or silent, what is known. Raises nothing.

        This node's own events are there at once, the others' within some seconds.
        """
        now = self._manager.now()
        if self._read_at is None or not 0 <= now - self._read_at < _HOLDS:
            self._read_at = now
            try:
                self._manager.health.require()
                async with asyncio.timeout(_WITHIN):
                    await self._readings.join("", self._update)
            except StorageError as error:  # no trouble for the health: this node may lack the right to read there
                logger.debug("the events of the other nodes cannot be read: %s", error)
            except TimeoutError:
                pass  # the reading goes on, and its result is there for the next call
        return self.known()

    async def _update(self) -> None:
        manager = self._manager
        self._stored = await manager.threads.storage(manager.event_log.read, manager.now(), self._stored)
