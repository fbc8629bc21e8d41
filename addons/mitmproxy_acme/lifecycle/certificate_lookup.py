"""Certificate lookup: what is stored for a name, read once for any number of callers at the same time.

This module knows storage and the renewal schedule; it must not know what is done where nothing is stored.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field

from acme_storage import StorageError

from ..config.config import Config
from ..core.certificate import Certificate
from ..core.errors import AcmeError, BackingOff
from ..core.events import CheckScheduled, Events
from ..core.names import ServerName, Subject
from ..core.renewal import renew_at
from ..core.single_flight import SingleFlight
from ..core.thread_pools import ThreadPools
from ..store.renewal_schedule import RenewalSchedule, ScheduledCheck
from ..store.store import Store
from ..store.usage_marks import UsageMarks
from .certificate_policy import CertificatePolicy
from .ordering.admission import Admission

# Names of visitors that are read from storage at once; more of them get the fallback.
_MOST_LOOKUPS = 1_000


@dataclass(frozen=True, slots=True)
class StoredCertificate:
    """The stored certificate that can be served, if there is one.

    ``known`` says whether any is stored, served or not; not for an idle name that has expired, which counts as new.
    """

    certificate: Certificate | None
    known: bool


@dataclass(frozen=True, slots=True)
class CertificateLookup:
    """The lookups of one node. Use it from one event loop."""

    config: Config
    store: Store
    schedule: RenewalSchedule
    marks: UsageMarks
    threads: ThreadPools
    policy: CertificatePolicy
    events: Events
    admission: Admission
    now: Callable[[], float]
    _lookups: SingleFlight[ServerName, StoredCertificate] = field(
        default_factory=lambda: SingleFlight("lookup"), init=False
    )

    def require_room(self, subject: Subject) -> None:
        """Raise ``BackingOff`` while too many names of visitors are being read."""
        if len(self._lookups) >= _MOST_LOOKUPS and not subject.managed:
            raise BackingOff(f"{subject}: {_MOST_LOOKUPS} names are being looked up already", until=self.now())

    async def find(self, subject: Subject) -> StoredCertificate:
        """Return what is stored for it. Raises ``StorageError``, ``RecordRefused``."""
        return await self._lookups.join(subject.id, lambda: self._find(subject))

    async def find_for_visitor(self, subject: Subject) -> StoredCertificate:
        """Do the same; raises ``BackingOff`` where visitors have asked for too many names without a certificate."""
        if subject.managed:
            return await self.find(subject)
        self.admission.require_lookup(subject)
        found = await self.find(subject)
        if not found.known:
            self.admission.count_fruitless()
        return found

    async def wait_for(self, id: ServerName) -> None:
        """Wait for a lookup of ``id`` that is under way; the handshake that waits for it has gone on then."""
        if (lookup := self._lookups.get(id)) is not None:
            with contextlib.suppress(AcmeError, StorageError):
                await lookup

    async def wait_idle(self) -> None:
        """Wait until nothing is under way."""
        await self._lookups.wait_idle()

    async def _find(self, subject: Subject) -> StoredCertificate:
        slot = await self.threads.storage(self.store.slot, subject.id)
        certificate, known = slot.certificate, slot.record is not None or slot.corrupt
        if certificate is None or not certificate.serves(subject, self.now()):
            return StoredCertificate(None, known and not await self._was_idle(subject, certificate))
        now = self.now()
        overdue = renew_at(certificate, self.config.renew_before, None, now) <= now
        if overdue or not self.policy.is_wanted(subject, certificate):
            # The schedule may not list it (a killed process, an import). One entry too many is harmless.
            await self.threads.storage(self.schedule.add, ScheduledCheck(subject.id, now))
            self.events.publish(CheckScheduled(now))
        return StoredCertificate(certificate, known)

    async def _was_idle(self, subject: Subject, certificate: Certificate | None) -> bool:
        """Say whether it has expired because no client asked for it."""
        if certificate is None or subject.managed or not self.config.lets_idle_expire:
            return False
        if self.now() < certificate.not_after:
            return False
        return await self.threads.storage(self.marks.is_idle, certificate.id, certificate.begun)
