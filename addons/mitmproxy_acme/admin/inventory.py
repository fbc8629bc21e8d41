"""The stored certificates in memory, for lists, counts and the page.

This module knows when to read the storage; it must not know who asks. 100,000 certificates cannot be read for each
request: they are read in the background, a part at a time, and changes are read at once.
"""

import asyncio
import bisect
import heapq
import logging
import threading
import time
from collections.abc import Collection, Iterator
from functools import partial
from itertools import islice

from cachetools import TTLCache, cachedmethod

from acme_storage import StorageError

from ..core.backoff import Backoff
from ..core.errors import RecordRefused
from ..core.events import (
    CertificateObtained,
    CertificateRemoved,
    ChangedElsewhere,
    CheckScheduled,
    Event,
    ExpiredRemoved,
    IdleChanged,
    RenewalScheduled,
)
from ..core.names import ServerName, name_of, parse_server_name
from ..core.renewal import renew_at
from ..lifecycle.manager import Manager
from ..store.keys import name_in_scope
from .certificate_rows import CertificateDetails, CertificateRow, SortKey, State
from .summary import Summary, summarize

logger = logging.getLogger(__name__)

# Certificates that are read in one go; then the storage and the interpreter are left to others for as long.
_PART = 50
# Seconds after which everything is read again, for changes without an event: a store that was restored or edited.
_READ_ALL_EVERY = 900.0
_FAILURES_EVERY = 15.0
_MOST_FAILURES = 1_000
_SUMMARY_HOLDS = 10.0
_RETRY_AFTER = 3.0


class Inventory:
    """The stored certificates. ``run`` never returns; cancel it.

    Use it from one event loop; ``select`` and ``summary`` take long with many certificates, and may be called from any
    thread. ``revision`` grows with every change.
    """

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._rows: dict[ServerName, CertificateRow] = {}
        self._order: list[ServerName] = []  # replaced, never modified: threads may be reading it
        self._stored_failures: dict[str, Backoff] = {}
        self._stale: set[ServerName] = set()
        self._woken = asyncio.Event()
        self._all_read = asyncio.Event()
        self._summaries: TTLCache[int, Summary] = TTLCache(1, _SUMMARY_HOLDS, timer=manager.now)
        self._summary_lock = threading.Lock()
        self.revision = 0
        manager.events.subscribe(self._on_event)

    @property
    def complete(self) -> bool:
        """Whether every stored certificate has been read once."""
        return self._all_read.is_set()

    async def loaded(self, within: float) -> bool:
        """Wait until it is complete, at most ``within`` seconds; return whether it is."""
        try:
            await asyncio.wait_for(self._all_read.wait(), within)
        except TimeoutError:
            return False
        return True

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, id: ServerName) -> CertificateRow | None:
        return self._rows.get(id)

    async def read(self, id: ServerName) -> CertificateRow | None:
        """Return what is stored under ``id`` at this moment. Raises ``StorageError``."""
        await self._refresh([id])
        return self._rows.get(id)

    def select(
        self,
        *,
        search: str = "",
        states: Collection[State] = (),
        invalid_only: bool = False,
        order: SortKey = SortKey.HOST,
        after: str = "",
        size: int,
    ) -> tuple[list[CertificateRow], bool]:
        """Return at most ``size`` rows after ``after`` in this order, and whether more follow.

        ``search`` is part of a name in lower case, or a whole label as people write it; ``states`` are alternatives;
        ``invalid_only`` leaves out what clients accept; ``after`` is the ``sort_value`` of a row.
        """
        if not search.isascii():
            search = parse_server_name(search) or search  # names are stored as in DNS
        now = self._manager.now()
        found = (
            row
            for row in (self._by_host(after) if order is SortKey.HOST else self._following(after, order))
            if (not search or row.matches(search))
            and (not states or row.state(now) in states)
            and not (invalid_only and row.is_valid(now))
        )
        sort_value = partial(CertificateRow.sort_value, order=order)
        rows = list(islice(found, size + 1)) if order is SortKey.HOST else heapq.nsmallest(size + 1, found, sort_value)
        return rows[:size], len(rows) > size

    def _by_host(self, after: str) -> Iterator[CertificateRow]:
        order = self._order
        following = islice(order, bisect.bisect_right(order, after), None) if after else iter(order)
        return (row for id in following if (row := self._rows.get(id)) is not None)

    def _following(self, value: str, order: SortKey) -> Iterator[CertificateRow]:
        return (row for row in list(self._rows.values()) if row.sort_value(order) > value)

    @cachedmethod(lambda self: self._summaries, key=lambda self: self.revision, lock=lambda self: self._summary_lock)
    def summary(self) -> Summary:
        """Count the certificates; a count holds for some seconds, or until something changes."""
        return summarize(list(self._rows.values()), self._manager.now())

    def failures(self) -> dict[ServerName, Backoff]:
        """Return the names that cannot be ordered now because of a failure on any node."""
        return self._manager.backoffs.of_names(self._stored_failures)

    def failure_of(self, id: ServerName) -> Backoff | None:
        """Return the failure because of which one name cannot be ordered now, without reading the others."""
        return self._manager.backoffs.of_name(name_of(id), self._stored_failures)

    def failure_of_ca(self, directory: str) -> Backoff | None:
        """Return the backoff of a whole CA on any node, None if it has none."""
        return self._manager.backoffs.of_ca(directory, self._stored_failures)

    async def load(self) -> None:
        """Read everything once, in a process that does nothing else. Raises ``StorageError``."""
        await self._read_all(alone=True)
        await self.read_failures()

    async def run(self) -> None:
        """Read everything, then changes, and now and then everything again."""
        read_all_at = 0.0
        while True:
            try:
                if time.monotonic() >= read_all_at:
                    await self._read_all()
                    read_all_at = time.monotonic() + _READ_ALL_EVERY
                await self.read_failures()
                await self._read_changes(_FAILURES_EVERY)
            except StorageError as error:
                self._manager.health.trouble(error)
                await asyncio.sleep(_RETRY_AFTER)
            except Exception:  # any error: otherwise the list would stay as it is for ever
                logger.exception("the inventory could not be read")
                await asyncio.sleep(_RETRY_AFTER)

    async def _read_changes(self, seconds: float) -> None:
        """Wait for ``seconds``, and read changes at once."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                await asyncio.wait_for(self._woken.wait(), left)
            except TimeoutError:
                return
            self._woken.clear()
            await self._refresh_stale()

    async def _refresh_stale(self) -> None:
        while self._stale:
            part = list(islice(self._stale, _PART))
            self._stale.difference_update(part)  # first: a change during the reading makes it stale again
            try:
                await self._refresh(part)
            except StorageError:
                self._stale.update(part)
                raise

    async def _read_all(self, *, alone: bool = False) -> None:
        after, found = "", set[ServerName]()
        threads, store = self._manager.threads, self._manager.store
        while ids := await threads.storage(store.ids, after=after, limit=_PART):
            begun = time.monotonic()
            await self._refresh(ids)
            await self._refresh_stale()
            found.update(ids)
            after = ids[-1]
            await asyncio.sleep(0.0 if alone else time.monotonic() - begun)
        for id in [id for id in self._rows if id not in found]:
            await self._refresh([id])  # it may have been stored after the walk had passed it
        self._all_read.set()

    async def _refresh(self, ids: list[ServerName]) -> None:
        read = await self._manager.threads.storage(self._read, ids)
        changed = {id: row for id, row in read if row != self._rows.get(id)}
        if not changed:
            return
        new = [id for id in changed if id not in self._rows]
        gone = [id for id, row in changed.items() if row is None]
        self._rows.update({id: row for id, row in changed.items() if row is not None})
        for id in gone:
            del self._rows[id]
        kept = [id for id in self._order if id in self._rows] if gone else self._order
        if new or gone:
            self._order = sorted([*kept, *new])  # fast, since most of it is sorted
        self.revision += 1

    def _read(self, ids: list[ServerName]) -> list[tuple[ServerName, CertificateRow | None]]:
        return [(id, self._read_one(id)) for id in ids]

    def _read_one(self, id: ServerName) -> CertificateRow | None:
        try:
            slot = self._manager.store.slot(id)
        except RecordRefused as error:
            return CertificateRow(id, None, str(error))
        if (certificate := slot.certificate) is not None:
            info = self._manager.schedule.renewal_info(id, certificate.renewal_id)
            due = renew_at(certificate, self._manager.config.renew_before, info, self._manager.now())
            idle = due <= self._manager.now() and self._manager.is_idle(certificate)
            return CertificateRow(id, CertificateDetails.of(certificate, due, idle=idle))
        return CertificateRow(id, None, "the record is broken") if slot.record is not None or slot.corrupt else None

    async def read_failures(self) -> None:
        """Read the names and CAs that cannot be asked now. Raises ``StorageError``."""
        manager = self._manager
        found = await manager.threads.storage(
            manager.store.backoffs, self._stored_failures, manager.now(), limit=_MOST_FAILURES
        )
        if found != self._stored_failures:
            self._stored_failures = found
            self.revision += 1

    def _on_event(self, event: Event) -> None:
        match event:
            case CertificateObtained():
                self._mark_stale({event.subject.id})
            case CertificateRemoved():
                self._mark_stale({event.id})
            case RenewalScheduled() | IdleChanged():
                self._stale.add(event.id)
                self._woken.set()
            case ChangedElsewhere() | ExpiredRemoved():
                self._mark_stale(event.ids)
            case CheckScheduled():
                pass
            case _:
                self.revision += 1

    def _mark_stale(self, ids: Collection[ServerName]) -> None:
        """Read these soon; their failures are outdated, and are read again too."""
        self._stale.update(ids)
        stored, names = self._stored_failures.items(), {name_of(id) for id in ids}
        self._stored_failures = {scope: failure for scope, failure in stored if name_in_scope(scope) not in names}
        self._woken.set()
