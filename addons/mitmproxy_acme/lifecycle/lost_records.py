"""Lost records: certificates that this node holds in memory and the storage has lost are stored again, not ordered.

A store may come back without what it had: a Redis that keeps nothing on disk, a failover to an older copy, which has
the certificates before the last renewals. A deletion is announced, a loss is not: that is how the two are told apart.
This module knows memory, storage and announcements; it must not know how a certificate is ordered or served.
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
from ..core.renewal import DAY, begun_by, first_check_at
from ..core.structured_logging import fields
from ..core.thread_pools import ThreadPools
from ..store.change_feed import ChangeFeed, is_deleted
from ..store.renewal_schedule import RenewalSchedule, ScheduledCheck
from ..store.store import Slot, Store
from .cache import Cache
from .certificate_policy import CertificatePolicy

logger = logging.getLogger(__name__)

# Ids that one call lists, and certificates that a thread stores before others have a turn.
_PAGE, _PART = 1_000, 20


class LostRecords:
    """Looks for losses, and mends them. Use it from one event loop.

    Only what is absent is written, or newer than the stored certificate, and nothing whose deletion is announced.
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
        held = self._cache.find(subject) if self._config.orders else None
        if held is None or not self._lacks(slot, held):
            return None
        if not held.serves(subject, self._now()) or not self._policy.is_wanted(subject, held):
            return None
        if replacing is not None and held.fingerprint == replacing.fingerprint:
            return None
        if is_deleted(held, await self._threads.storage(self._changes.deletions, [held.id]), self._now()):
            return None
        if await self._store_again([held]):
            return held
        now_stored: Slot = await self._threads.storage(self._store.slot, held.id)
        return now_stored.satisfying(subject, replacing, self._now())

    def _missing(self, held: dict[ServerName, Certificate]) -> list[Certificate]:
        """Return those that are not stored, or only an earlier one, and that were not deleted. Blocks.

        The announcements are read last: who deletes a certificate announces it before.
        """
        missing, after = dict(held), ""
        while missing and (ids := self._store.ids(after=after, limit=_PAGE)):
            for id in ids:
                if (stored := missing.get(id)) is not None and not self._is_behind(stored):
                    missing.pop(id)
            after = ids[-1]
        deletions = self._changes.deletions(missing) if missing else {}
        return [certificate for certificate in missing.values() if not is_deleted(certificate, deletions, self._now())]

    def _is_behind(self, held: Certificate) -> bool:
        """Say whether what is stored is earlier. Reads only for new ones: a copy lacks no more than the last writes."""
        if not self._is_new(held):
            return False
        with contextlib.suppress(RecordRefused):
            return self._lacks(self._store.slot(held.id), held)
        return False

    def _is_new(self, certificate: Certificate) -> bool:
        return self._now() - certificate.begun < DAY

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
        """Store it if nothing is stored for its id, or an earlier one; False if another node was faster. Blocks."""
        with contextlib.suppress(RecordRefused):
            slot, stolen = self._store.slot(certificate.id), self._store.compromised(certificate.id)
            if not self._lacks(slot, certificate) or (stolen is not None and stolen.has_same_key_as(certificate)):
                return False
            # Scheduled before it is stored, as after an order.
            now = self._now()
            check_at = max(first_check_at(certificate, self._config.renew_before, now), now)
            self._schedule.add(ScheduledCheck(certificate.id, check_at))
            if self._store.replace(slot, certificate):
                if self._is_new(certificate):  # its announcement may be lost too
                    self._changes.announce(certificate.id, self._now())
                return True
        return False

    def _lacks(self, slot: Slot, held: Certificate) -> bool:
        """Say whether nothing is stored there, or a certificate from before ``held``."""
        if (stored := slot.certificate) is None:
            return slot.record is None and not slot.corrupt
        now = self._now()
        return begun_by(stored, now) < begun_by(held, now) and stored.not_after < held.not_after

    def _report(self, restored: int) -> None:
        logger.warning(
            "the storage has lost certificates; %d that this node holds %s stored again (node %s)",
            restored,
            "is" if restored == 1 else "are",
            self._node,
            extra=fields("certificates_restored", node=self._node, count=restored),
        )
