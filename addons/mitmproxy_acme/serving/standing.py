"""Standing records: the TXT records of all orders under way, on whichever node; read as seldom as may be.

This module knows when to look; it must not know how a resolver asks. Anybody may ask for any name of ours, so no name
costs a look of its own: one look takes all of them, for everybody who waits for it.
"""

import asyncio

from acme_storage import StorageError

from ..manager import Manager
from .zones import Texts

# Between two looks, in seconds, or as long as the last one took: at any flood storage is read half of the time at most.
_REST = 0.02
_WAITING = 1_000


class Standing:
    """The records of one manager's storage. Use it from the event loop."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._turn = asyncio.Lock()
        self._coming: asyncio.Task[Texts | None] | None = None
        self._waiting = 0
        self._rested = 0.0

    async def texts(self) -> Texts | None:
        """Return the values by name, as of a moment after this call; None where storage or too many others bar it.

        Not of a look that is under way: what the CA was just told of may have been published behind it.
        """
        if self._waiting >= _WAITING:
            return None
        if self._coming is None:
            self._coming = asyncio.get_running_loop().create_task(self._look(), name="acme dns")
        self._waiting += 1
        try:
            return await asyncio.shield(self._coming)
        finally:
            self._waiting -= 1

    def here(self) -> Texts:
        """Return what this node's own orders have published: no storage, no wait."""
        return self._sorted(self._manager.store.records_here())

    async def _look(self) -> Texts | None:
        async with self._turn:
            loop = asyncio.get_running_loop()
            await asyncio.sleep(max(self._rested - loop.time(), 0.0))
            self._coming, begun = None, loop.time()
            try:
                records = await self._manager.threads.storage(self._manager.store.records)
            except StorageError as error:
                self._manager.health.trouble(error)
                return None
            finally:
                self._rested = loop.time() + max(_REST, loop.time() - begun)
        return self._sorted(records | self._manager.store.records_here())

    def _sorted(self, records: set[tuple[str, str]]) -> Texts:
        texts: dict[str, tuple[str, ...]] = {}
        for place, value in sorted(records):
            texts[place] = (*texts.get(place, ()), value)
        return Texts(texts, self._manager.config.dns_zone)
