"""Inventory: what is stored, kept in memory for whoever lists, counts or watches it.

This module knows the rhythm of reading; it must not know who asks. A storage of 100,000 certificates cannot be read
for each question, so it is read in the background, a part at a time, and what happens meanwhile is read at once.
"""

import asyncio
import bisect
import heapq
import logging
import time
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

from acme_storage import StorageError

from ..core.backoff import Backoff
from ..core.errors import RecordRefused
from ..core.events import CertificateObtained, CertificateRemoved, ChangedElsewhere, Event, RenewalScheduled
from ..core.names import ServerName, name_of, parse_server_name
from ..core.renewal import renew_at
from ..lifecycle.manager import Manager
from ..store.keys import named
from .certificate_rows import CertificateDetails, CertificateRow, SortKey, State

logger = logging.getLogger(__name__)

# So many certificates are read in one go, and then the others have the storage and the interpreter for as long.
_PART = 50
# All of it is read anew so often, for what nobody announced: a store that was restored, or edited by hand.
_WALK_EVERY = 900.0
_FAILURES_EVERY = 15.0
_MOST_FAILURES = 1_000
_SUMMARY_HOLDS = 10.0
_TRY_AGAIN = 3.0


@dataclass(frozen=True, slots=True)
class Summary:
    """How many certificates there are of each state, and the soonest of their times: Unix seconds, None without any."""

    counts: dict[State, int]
    soonest_expiry: float | None
    soonest_renewal: float | None

    @property
    def total(self) -> int:
        return sum(self.counts.values())


class Inventory:
    """What is stored. ``run`` never returns; cancel it.

    Use it from one event loop; ``select`` and ``summary`` take long where there are many, and may be called from any
    thread.
    """

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._rows: dict[ServerName, CertificateRow] = {}
        self._order: list[ServerName] = []  # replaced, never changed: threads may be reading it
        self._stored_failures: dict[str, Backoff] = {}
        self._stale: set[ServerName] = set()
        self._woken = asyncio.Event()
        self._walked = asyncio.Event()
        self._summary: tuple[float, int, Summary] | None = None
        self.revision = 0
        manager.events.subscribe(self._happened)

    @property
    def complete(self) -> bool:
        """Whether all that is stored has been read once."""
        return self._walked.is_set()

    async def loaded(self, within: float) -> bool:
        """Wait until it is complete, for so many seconds at most; say whether it is."""
        try:
            await asyncio.wait_for(self._walked.wait(), within)
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
        """Return the rows behind ``after``, in this order, at most ``size`` of them, and whether there are more.

        ``search`` is a part of any of the names, in lower case, or a whole label as people write it; ``states`` are any
        of several; ``invalid_only`` leaves out what a client accepts; ``after`` is the place of a row.
        """
        if not search.isascii():
            search = parse_server_name(search) or search  # names are kept as DNS has them
        now = self._manager.now()
        found = (
            row
            for row in (self._by_host(after) if order is SortKey.HOST else self._behind(after, order))
            if (not search or row.matches(search))
            and (not states or row.state(now) in states)
            and not (invalid_only and row.is_valid(now))
        )
        sort_value = partial(CertificateRow.sort_value, order=order)
        rows = list(islice(found, size + 1)) if order is SortKey.HOST else heapq.nsmallest(size + 1, found, sort_value)
        return rows[:size], len(rows) > size

    def _by_host(self, after: str) -> Iterator[CertificateRow]:
        order = self._order
        behind = islice(order, bisect.bisect_right(order, after), None) if after else iter(order)
        return (row for id in behind if (row := self._rows.get(id)) is not None)

    def _behind(self, value: str, order: SortKey) -> Iterator[CertificateRow]:
        return (row for row in list(self._rows.values()) if row.sort_value(order) > value)

    def summary(self) -> Summary:
        """Count; what was counted holds for some seconds, or until something changes."""
        now, revision = self._manager.now(), self.revision
        if self._summary is not None and self._summary[1] == revision and 0 <= now - self._summary[0] < _SUMMARY_HOLDS:
            return self._summary[2]
        rows = list(self._rows.values())
        counts = Counter(row.state(now) for row in rows)
        facts = [row.facts for row in rows if row.facts is not None]
        summary = Summary(
            {state: counts[state] for state in State},
            min((f.not_after for f in facts if f.not_after > now), default=None),
            min((f.renew_at for f in facts), default=None),
        )
        self._summary = (now, revision, summary)
        return summary

    def failures(self) -> dict[ServerName, Backoff]:
        """Return the names that are left alone now, on any node."""
        return self._manager.failures.of_names(self._stored_failures)

    def failure_of(self, id: ServerName) -> Backoff | None:
        """Return what the name of one certificate is left alone for: no look at the others."""
        return self._manager.failures.of_name(name_of(id), self._stored_failures)

    def failure_of_ca(self, directory: str) -> Backoff | None:
        """Return why a CA as a whole is left alone now, on any node; None where it is not."""
        return self._manager.failures.of_ca(directory, self._stored_failures)

    async def load(self) -> None:
        """Read all once, for a process that does nothing else. Raises ``StorageError``."""
        await self._walk(alone=True)
        await self.read_failures()

    async def run(self) -> None:
        """Read all, then what changes, and now and then all again."""
        walk_at = 0.0
        while True:
            try:
                if time.monotonic() >= walk_at:
                    await self._walk()
                    walk_at = time.monotonic() + _WALK_EVERY
                await self.read_failures()
                await self._rest(_FAILURES_EVERY)
            except StorageError as error:
                self._manager.health.trouble(error)
                await asyncio.sleep(_TRY_AGAIN)
            except Exception:  # whatever it is: a list that is no longer kept shows what was
                logger.exception("the inventory could not be read")
                await asyncio.sleep(_TRY_AGAIN)

    async def _rest(self, seconds: float) -> None:
        """Wait so long, and read at once what happens meanwhile."""
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
            self._stale.difference_update(part)  # before it is read: what changes meanwhile is stale again
            try:
                await self._refresh(part)
            except StorageError:
                self._stale.update(part)
                raise

    async def _walk(self, *, alone: bool = False) -> None:
        after, seen = "", set[ServerName]()
        threads, store = self._manager.threads, self._manager.store
        while ids := await threads.storage(store.ids, after=after, limit=_PART):
            begun = time.monotonic()
            await self._refresh(ids)
            await self._refresh_stale()
            seen.update(ids)
            after = ids[-1]
            await asyncio.sleep(0.0 if alone else time.monotonic() - begun)
        for id in [id for id in self._rows if id not in seen]:
            await self._refresh([id])  # it may have come while the walk was beyond it
        self._walked.set()

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
            self._order = sorted([*kept, *new])  # quick, for most of it is sorted
        self.revision += 1

    def _read(self, ids: list[ServerName]) -> list[tuple[ServerName, CertificateRow | None]]:
        return [(id, self._read_one(id)) for id in ids]

    def _read_one(self, id: ServerName) -> CertificateRow | None:
        try:
            slot = self._manager.store.slot(id)
        except RecordRefused as error:
            return CertificateRow(id, None, str(error))
        if (certificate := slot.certificate) is not None:
            info = self._manager.calendar.renewal_info(id, certificate.renewal_id)
            return CertificateRow(
                id, CertificateDetails.of(certificate, renew_at(certificate, self._manager.config.renew_before, info))
            )
        return CertificateRow(id, None, "the record is broken") if slot.record is not None or slot.corrupt else None

    async def read_failures(self) -> None:
        """Read what is left alone now. Raises ``StorageError``."""
        manager = self._manager
        found = await manager.threads.storage(
            manager.store.backoffs, self._stored_failures, manager.now(), limit=_MOST_FAILURES
        )
        if found != self._stored_failures:
            self._stored_failures = found
            self.revision += 1

    def _happened(self, event: Event) -> None:
        match event:
            case CertificateObtained():
                self._changed({event.subject.id})
            case CertificateRemoved():
                self._changed({event.id})
            case RenewalScheduled():
                self._stale.add(event.id)
                self._woken.set()
            case ChangedElsewhere():
                self._changed(event.ids)
            case _:
                self.revision += 1

    def _changed(self, ids: Collection[ServerName]) -> None:
        """Read these soon; what failed before is history, and is read anew as well."""
        self._stale.update(ids)
        stored, names = self._stored_failures.items(), {name_of(id) for id in ids}
        self._stored_failures = {scope: failure for scope, failure in stored if named(scope) not in names}
        self._woken.set()
