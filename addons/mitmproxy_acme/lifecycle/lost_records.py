"""Lost records: certificates that this node holds in memory and the storage has lost are stored again, not ordered.

A store may come back without what it had: a Redis that keeps nothing on disk, a failover to an older copy. A deletion
is announced, a loss is not: that is how the two are told apart. This module knows memory, storage and announcements; it
must not know how a certificate is ordered or served.
"""

import contextlib
import logging
from collections.abc import Callable, Iterable
from itertools import batched

from acme_storage import StorageError

from ..config.config import Config
from ..core.certificate import Certificate
from ..core.errors import RecordRefused
from ..core.events import CheckScheduled, Events
from ..core.names import ServerName, Subject
from ..core.renewal import first_check_at
from ..core.structured_logging import fields
from ..core.thread_pools import ThreadPools
from ..store.change_feed import ChangeFeed
from ..store.renewal_schedule import RenewalSchedule, ScheduledCheck
from ..store.store import Slot, Store
from .cache import Cache
from .certificate_policy import CertificatePolicy

logger = logging.getLogger(__name__)

# Ids that one call lists, and certificates that a thread stores before others have a turn.
_PAGE, _PART = 1_000, 20


class LostRecords:
    """Looks for losses, and mends them. Use it from one event loop.

    Only what is absent is written: never over a record, whatever it is, and nothing whose deletion is announced.
    """

    def __init__(
        self,
        *,
        config: Config,
        store: Store,
        schedule: RenewalSchedule,
        changes: ChangeFeed,
        cache: Cache,
        policy: CertificatePolicy,
        threads: ThreadPools,
        events: Events,
        node: str,
        now: Callable[[], float],
    ) -> None:
        self._config = config
        self._store = store
        self._schedule = schedule
        self._changes = changes
        self._cache = cache
        self._policy = policy
        self._threads = threads
        self._events = events
        self._node = node
        self._now = now
        self._suspected = False

    def suspect(self) -> None:
        """Have the next ``restore`` look: the storage was down, and may have come back as an older copy."""
        self._suspected = True

    async def restore(self) -> None:
        """Store again what is lost, if there is reason to look. Call it after the announcements are read.

        Raises ``StorageError``; then the next call looks again. A data node does nothing: it may not have the right.
        """
        if not self._config.orders:
            return
        self._suspected = self._changes.take_loss() or self._suspected
        if not self._changes.is_marked:
            with contextlib.suppress(StorageError):  # a disk that is full or read-only can be read all the same
                await self._threads.storage(self._changes.leave_mark)
        if not self._suspected:
            return
        restored = await self._store_again(await self._threads.storage(self._missing, self._cache.held()))
        self._suspected = False
        if restored:
            self._report(restored)

    async def find(self, subject: Subject, slot: Slot, replacing: Certificate | None) -> Certificate | None:
        """Return the certificate that makes an order needless because only its record in ``slot`` is lost.

        It is stored again then, unless another node has just done that, or stored a newer one, which is returned.
        Raises ``StorageError``.
        """
        held = self._cache.find(subject) if _is_absent(slot) and self._config.orders else None
        if held is None or not held.serves(subject, self._now()) or not self._policy.is_wanted(subject, held):
            return None
        if replacing is not None and held.fingerprint == replacing.fingerprint:
            return None
        if await self._threads.storage(self._changes.deleted, [held.id]):
            return None
        if await self._store_again([held]):
            return held
        now_stored: Slot = await self._threads.storage(self._store.slot, held.id)
        return now_stored.satisfying(subject, replacing, self._now())

    def _missing(self, held: dict[ServerName, Certificate]) -> list[Certificate]:
        """Return those that are not stored, and that nobody has deleted. Blocks.

        The announcements are read last: who deletes a certificate announces it before.
        """
        missing, after = dict(held), ""
        while missing and (ids := self._store.ids(after=after, limit=_PAGE)):
            for id in ids:
                missing.pop(id, None)
            after = ids[-1]
        deleted = self._changes.deleted(missing) if missing else set()
        return [certificate for id, certificate in missing.items() if id not in deleted]

    async def _store_again(self, missing: Iterable[Certificate]) -> int:
        """Return how many were stored."""
        restored = 0
        for part in batched(missing, _PART):
            restored += await self._threads.storage(self._store_part, part)
        if restored:
            self._events.publish(CheckScheduled(self._now()))
        return restored

    def _store_part(self, part: tuple[Certificate, ...]) -> int:
        return sum(self._store_one(certificate) for certificate in part)

    def _store_one(self, certificate: Certificate) -> bool:
        """Store it if nothing is stored for its id; False if another node was faster. Blocks."""
        with contextlib.suppress(RecordRefused):
            slot, stolen = self._store.slot(certificate.id), self._store.compromised(certificate.id)
            if not _is_absent(slot) or (stolen is not None and stolen.has_same_key_as(certificate)):
                return False
            # Scheduled before it is stored, as after an order.
            check_at = max(first_check_at(certificate, self._config.renew_before), self._now())
            self._schedule.add(ScheduledCheck(certificate.id, check_at))
            return self._store.replace(slot, certificate)
        return False

    def _report(self, restored: int) -> None:
        logger.warning(
            "the storage has lost certificates; %d that this node holds %s stored again (node %s)",
            restored,
            "is" if restored == 1 else "are",
            self._node,
            extra=fields("certificates_restored", node=self._node, count=restored),
        )


def _is_absent(slot: Slot) -> bool:
    return slot.record is None and not slot.corrupt
