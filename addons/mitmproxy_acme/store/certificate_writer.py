"""Saving a certificate: in the renewal schedule, then under its key, then announced, so that a kill loses nothing.

This module knows the order of the writes; it must not know where a certificate comes from.
"""

import contextlib
from dataclasses import dataclass

from acme_storage import StorageError

from ..core.certificate import Certificate
from ..core.names import Subject
from .change_feed import ChangeFeed
from .renewal_schedule import RenewalSchedule, ScheduledCheck
from .store import Slot, Store


@dataclass(frozen=True, slots=True)
class CertificateWriter:
    """Writes certificates to one storage. ``save`` blocks and is safe from any thread."""

    store: Store
    calendar: RenewalSchedule
    changes: ChangeFeed

    def save(
        self, subject: Subject, slot: Slot, certificate: Certificate, *, check_at: float, now: float
    ) -> Certificate:
        """Write ``certificate`` over the record that ``slot`` read, and schedule its first check (Unix seconds).

        Returns the certificate that is stored in the end: another node's, if that node was faster and its certificate
        lasts as long. Raises ``StorageError``, and ``RecordRefused`` if a record is there that must not be replaced.
        """
        # Scheduled before it is stored, so that no kill between the two leaves it unscheduled.
        self.calendar.add(ScheduledCheck(subject.id, check_at))
        while not self.store.replace(slot, certificate):
            slot = self.store.slot(subject.id)
            stored = slot.certificate
            if stored is not None and stored.fingerprint == certificate.fingerprint:
                break  # an earlier call has stored it, failed after that, and has not announced it
            if stored is not None and stored.serves(subject, now) and stored.not_after >= certificate.not_after:
                return stored
        with contextlib.suppress(StorageError):  # it is announced later, or noticed when the old one is overdue
            self.changes.announce(subject.id, now)
        return certificate
