"""Standing records: the TXT records of all orders under way, on whichever node; read as seldom as may be.

This module knows what is read; it must not know how a resolver asks. Anybody may ask for any name of ours, so no name
costs a look of its own: one look takes all of them, for everybody who waits for it.
"""

from itertools import groupby
from operator import itemgetter

from acme_storage import StorageError

from ...lifecycle.manager import Manager
from ..shared_read import SharedRead
from .zones import NO_TEXTS, Texts


class TxtRecordReader:
    """The records of one manager's storage. Use it from the event loop."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._looks = SharedRead("dns", self._look)
        self._sorted: tuple[set[tuple[str, str]], Texts] = set(), NO_TEXTS  # replaced as a whole, by any thread

    async def texts(self) -> Texts | None:
        """Return the values by name, as of a moment after this call; None where storage or too many others bar it.

        Not of a look that is under way: what the CA was just told of may have been published behind it.
        """
        return await self._looks.join()

    def here(self) -> Texts:
        """Return what this node's own orders have published: no storage, no wait."""
        return self._sort(self._manager.store.records_here())

    async def _look(self) -> Texts | None:
        try:
            self._manager.health.require()
            return await self._manager.threads.storage(self._read)
        except StorageError as error:
            self._manager.health.trouble(error)
            return None

    def _read(self) -> Texts:
        """Runs in a thread of the storage: thousands of records take milliseconds to sort."""
        return self._sort(self._manager.store.records() | self._manager.store.records_here())

    def _sort(self, records: set[tuple[str, str]]) -> Texts:
        last, texts = self._sorted
        if records != last:
            by_place = {
                place: tuple(value for _, value in here) for place, here in groupby(sorted(records), itemgetter(0))
            }
            texts = Texts(by_place, self._manager.config.dns_zone).prepared()
            self._sorted = records, texts
        return texts
