"""Standing records: the TXT records of all orders under way, on whichever node; read as seldom as may be.

This module knows what is read; it must not know how a resolver asks. Anybody may ask for any name of ours, so no name
costs a look of its own: one look takes all of them, for everybody who waits for it.
"""

from acme_storage import StorageError

from ..manager import Manager
from .looks import Looks
from .zones import Texts


class Standing:
    """The records of one manager's storage. Use it from the event loop."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._looks = Looks("dns", self._look)

    async def texts(self) -> Texts | None:
        """Return the values by name, as of a moment after this call; None where storage or too many others bar it.

        Not of a look that is under way: what the CA was just told of may have been published behind it.
        """
        return await self._looks.join()

    def here(self) -> Texts:
        """Return what this node's own orders have published: no storage, no wait."""
        return self._sorted(self._manager.store.records_here())

    async def _look(self) -> Texts | None:
        try:
            self._manager.health.require()
            records = await self._manager.threads.storage(self._manager.store.records)
        except StorageError as error:
            self._manager.health.trouble(error)
            return None
        return self._sorted(records | self._manager.store.records_here())

    def _sorted(self, records: set[tuple[str, str]]) -> Texts:
        texts: dict[str, tuple[str, ...]] = {}
        for place, value in sorted(records):
            texts[place] = (*texts.get(place, ()), value)
        return Texts(texts, self._manager.config.dns_zone)
