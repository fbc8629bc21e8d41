"""Lookup: what is stored for a name, read once however many ask at the same time.

This module knows storage and the calendar; it must not know what is done where nothing is stored.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from ..core.certificate import Certificate
from ..core.names import ServerName, Subject
from ..core.renewal import RenewBefore, renew_at
from ..core.single_flight import SingleFlight
from ..core.thread_pools import ThreadPools
from ..store.renewal_schedule import RenewalSchedule, ScheduledCheck
from ..store.store import Store
from .admission import Admission


@dataclass(frozen=True, slots=True)
class StoredCertificate:
    """The stored certificate that can be served, if there is one; ``known`` says whether any was ever stored."""

    certificate: Certificate | None
    known: bool


@dataclass(frozen=True, slots=True)
class CertificateLookup:
    """The looks of one node. ``is_wanted`` judges a certificate. Use it from one event loop."""

    store: Store
    calendar: RenewalSchedule
    threads: ThreadPools
    wish: RenewBefore
    is_wanted: Callable[[Subject, Certificate], bool]
    on_scheduled: Callable[[float], None]
    now: Callable[[], float]
    admission: Admission
    _looks: SingleFlight[ServerName, StoredCertificate] = field(
        default_factory=lambda: SingleFlight("load"), init=False
    )

    def __len__(self) -> int:
        """Return how many looks are under way."""
        return len(self._looks)

    async def find(self, subject: Subject) -> StoredCertificate:
        """Return what is stored for it. Raises ``StorageError``, ``DecryptionFailed``."""
        return await self._looks.join(subject.id, lambda: self._find(subject))

    async def find_for_visitor(self, subject: Subject) -> StoredCertificate:
        """Do the same; raises ``BackingOff`` where visitors have asked for too many names that have none."""
        if subject.managed:
            return await self.find(subject)
        self.admission.require_look(subject)
        found = await self.find(subject)
        if not found.known:
            self.admission.count_fruitless()
        return found

    async def wait_idle(self) -> None:
        """Wait until nothing is under way."""
        await self._looks.wait_idle()

    async def _find(self, subject: Subject) -> StoredCertificate:
        slot = await self.threads.storage(self.store.slot, subject.id)
        certificate, known = slot.certificate, slot.record is not None or slot.corrupt
        if certificate is None or not certificate.serves(subject, self.now()):
            return StoredCertificate(None, known)
        overdue = renew_at(certificate, self.wish, None) <= self.now()
        if overdue or not self.is_wanted(subject, certificate):
            # The calendar may not list it (a killed process, an import). One entry too many is harmless.
            await self.threads.storage(self.calendar.add, ScheduledCheck(subject.id, self.now()))
            self.on_scheduled(self.now())
        return StoredCertificate(certificate, known)
