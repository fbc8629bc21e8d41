"""Housekeeper: removes certificates that expired long ago, with all that is stored beside them.

The renewer lists a certificate as expired when it gives it up, so a pass costs what is due. What no calendar entry led
to (earlier releases dropped the entries of expired certificates) is found by a slow walk over the stored certificates,
once a month. Both go by the cautious clock: a node whose own is ahead would remove what others still serve. This module
knows when to remove what; it must not know how records are spelt.
"""

import asyncio
import logging
from collections.abc import Callable

from acme_storage import StorageError

from ...config.config import Config
from ...core.certificate import Certificate
from ...core.errors import RecordRefused
from ...core.events import Events, ExpiredRemoved
from ...core.names import ServerName
from ...core.renewal import DAY, describe_duration
from ...core.structured_logging import fields
from ...core.thread_pools import ThreadPools
from ...store.change_feed import ChangeFeed
from ...store.expired_certificates import ExpiredCertificate, ExpiredCertificates, Walk
from ...store.keys import HOUSEKEEPING_SCOPE
from ...store.lease import Lease
from ...store.renewal_schedule import RenewalSchedule, ScheduledCheck
from ...store.store import Store
from ..cautious_clock import CautiousClock
from ..lease_holder import hold_lease
from ..storage_health import StorageHealth

logger = logging.getLogger(__name__)

# Seconds between two passes, and after a pass that has left something to do.
_REST, _REST_WITH_MORE = 60.0, 10.0
# Certificates that one pass removes, and those that it reads on its walk: under a second of one thread on most stores.
_MOST_REMOVED, _MOST_WALKED = 100, 500
# Certificates at a time: what a client waits for is read in between.
_PART = 20
_WALK_EVERY = 30 * DAY


class Housekeeper:
    """Removes what has expired from one storage, as every node that orders does, one at a time.

    ``run`` never returns; cancel it.
    """

    def __init__(
        self,
        *,
        config: Config,
        directories: tuple[str, ...],
        store: Store,
        expired: ExpiredCertificates,
        schedule: RenewalSchedule,
        changes: ChangeFeed,
        threads: ThreadPools,
        health: StorageHealth,
        events: Events,
        node: str,
        now: Callable[[], float],
        clock: CautiousClock,
    ) -> None:
        """``directories`` are the URLs of the CAs of the options."""
        self._config = config
        self._directories = directories
        self._store = store
        self._expired = expired
        self._schedule = schedule
        self._changes = changes
        self._threads = threads
        self._health = health
        self._events = events
        self._node = node
        self._now = now
        self._clock = clock

    async def run(self) -> None:
        """Rest, so that a start is not slowed down, and then remove what is due, again and again."""
        rest = _REST
        while self._config.keep_expired is not None:
            await asyncio.sleep(rest)
            rest = _REST
            try:
                self._health.require()
                rest = await self.round(self._config.keep_expired)
            except StorageError as error:
                self._health.trouble(error)
            except Exception:  # logged, so that one fault does not end all housekeeping
                logger.exception("the removal of expired certificates failed")

    async def round(self, keep: float) -> float:
        """Remove what ended more than ``keep`` seconds ago, unless another node does so now; return how long to rest.

        Raises ``StorageError``.
        """
        self._clock.look()
        if not any(await self._threads.storage(self._due, self._now(), keep)):
            return _REST
        now = await self._clock.moment()
        if now is None or not any(await self._threads.storage(self._due, now, keep)):
            return _REST
        lease = await self._threads.storage(Lease.acquire, self._store.storage, HOUSEKEEPING_SCOPE, self._node)
        if lease is None:
            return _REST
        async with hold_lease(lease, self._threads):
            due, walk = await self._threads.storage(self._due, now, keep)  # another node may have been here meanwhile
            await self._remove(due, now, keep)
            if walk is not None:
                await self._walk(walk, now)
        return _REST_WITH_MORE if len(due) == _MOST_REMOVED else _REST

    def _due(self, now: float, keep: float) -> tuple[list[ExpiredCertificate], Walk | None]:
        """Return what is to be removed at ``now``, and how far the walk has come if it goes on then. Blocks."""
        walk = self._expired.walk()
        # One that begins later than the next one can was put off by a clock that was ahead.
        goes_on = walk.begin_at <= now or walk.begin_at > self._now() + _WALK_EVERY
        return self._expired.ended_by(now - keep, limit=_MOST_REMOVED), walk if goes_on else None

    async def _remove(self, due: list[ExpiredCertificate], now: float, keep: float) -> None:
        removed = list[ServerName]()
        try:
            for start in range(0, len(due), _PART):
                await self._threads.storage(self._remove_part, due[start : start + _PART], now, keep, removed)
        finally:
            if removed:
                self._report(removed, keep)

    def _remove_part(self, due: list[ExpiredCertificate], now: float, keep: float, removed: list[ServerName]) -> None:
        """Remove a part of what is due, add the ids to ``removed``, and tell other nodes. Blocks."""
        for entry in due:
            if self._remove_one(entry, now, keep):
                removed.append(entry.id)
                # Not as a deletion, which is announced for a day: no node serves an expired certificate.
                self._changes.announce(entry.id, self._now())

    def _remove_one(self, entry: ExpiredCertificate, now: float, keep: float) -> bool:
        try:
            slot = self._store.slot(entry.id)
        except RecordRefused:  # sealed by a key that this node lacks, or of a later release: it is not ours to remove
            self._expired.forget(entry)
            return False
        certificate = slot.certificate
        if certificate is None:
            if slot.record is None and not slot.corrupt:  # a person deleted it, and not what belongs to it
                self._expired.remove(entry, slot, now, self._directories)
            self._expired.forget(entry)
            return False
        if self._config.manages(entry.id):
            self._schedule.add(ScheduledCheck(entry.id, now))
        elif certificate.not_after + keep <= now:
            return self._expired.remove(entry, slot, now, self._directories)
        elif certificate.not_after <= now:  # a later one, which has expired since
            self._list(certificate)
        self._expired.forget(entry)
        return False

    def _list(self, certificate: Certificate) -> None:
        self._expired.add(ExpiredCertificate(certificate.id, certificate.not_after))

    async def _walk(self, walk: Walk, now: float) -> None:
        """List the expired certificates of the next page of the storage."""
        ids = await self._threads.storage(self._store.ids, after=walk.after, limit=_MOST_WALKED)
        for start in range(0, len(ids), _PART):
            await self._threads.storage(self._list_expired, ids[start : start + _PART], now)
        over = len(ids) < _MOST_WALKED
        walked = Walk("", now + _WALK_EVERY) if over else Walk(ids[-1])
        await self._threads.storage(self._expired.save_walk, walked)

    def _list_expired(self, ids: list[ServerName], now: float) -> None:
        """List those that expired more than a day ago; the renewer still checks the others. Blocks."""
        for id in ids:
            try:
                certificate = self._store.slot(id).certificate
            except RecordRefused:
                continue
            if certificate is not None and now - certificate.not_after > DAY and not self._config.manages(id):
                self._list(certificate)

    def _report(self, removed: list[ServerName], keep: float) -> None:
        logger.info(
            "removed %d certificate%s that expired more than %s ago (node %s)",
            len(removed),
            "" if len(removed) == 1 else "s",
            describe_duration(keep),
            self._node,
            extra=fields("expired_removed", node=self._node, count=len(removed)),
        )
        self._events.publish(ExpiredRemoved(frozenset(removed), self._node))
