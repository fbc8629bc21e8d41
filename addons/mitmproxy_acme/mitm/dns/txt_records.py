"""The TXT records of all orders under way, on any node, read as rarely as possible.

This module knows what is read; it must not know how a resolver asks. Strangers may ask for any name of ours, so a name
never costs a read of its own: one read fetches all records, for all that wait for it.
"""

from itertools import groupby
from operator import itemgetter

from acme_storage import StorageError

from ...lifecycle.manager import Manager
from ..shared_read import SharedRead
from .zones import NO_TXT_RECORDS, TxtRecords


class TxtRecordReader:
    """The records of one manager's storage. Use it from the event loop."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._reads = SharedRead("dns", self._read)
        self._last: tuple[set[tuple[str, str]], TxtRecords] = (
            set(),
            NO_TXT_RECORDS,
        )  # replaced as a whole, by any thread

    async def all(self) -> TxtRecords | None:
        """Return all records, read after this call; None if the storage fails, or if too many callers wait.

        A read that already runs does not count: it may have missed what an order published a moment ago.
        """
        return await self._reads.join()

    def local(self) -> TxtRecords:
        """Return the records of this node's own orders: no storage, no wait."""
        return self._index(self._local())

    async def _read(self) -> TxtRecords | None:
        try:
            self._manager.health.require()
            return await self._manager.threads.storage(self._read_storage)
        except StorageError as error:
            self._manager.health.trouble(error)
            return None

    def _read_storage(self) -> TxtRecords:
        """Runs in a thread of the storage: thousands of records take milliseconds to index."""
        return self._index(self._manager.store.txt_records() | self._local() | self._of_predecessor())

    def _local(self) -> set[tuple[str, str]]:
        before, own = self._manager.predecessor, self._manager.store.local_txt_records()
        return own | before.store.local_txt_records() if before is not None else own

    def _of_predecessor(self) -> set[tuple[str, str]]:
        """Return what the storage of before holds; nothing if it fails: the new one is what counts."""
        before = self._manager.predecessor
        if before is None or not before.is_asked:
            return set()
        try:
            return before.store.txt_records()
        except StorageError:
            return set()

    def _index(self, records: set[tuple[str, str]]) -> TxtRecords:
        last, indexed = self._last
        if records != last:
            by_name = {
                name: tuple(value for _, value in group) for name, group in groupby(sorted(records), itemgetter(0))
            }
            indexed = TxtRecords(by_name, self._manager.config.dns_zone).prepared()
            self._last = records, indexed
        return indexed
