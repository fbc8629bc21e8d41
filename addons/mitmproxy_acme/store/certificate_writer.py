"""Saving a certificate: in the calendar, under its key, and told to the other nodes, in the order that a kill survives.

This module knows what is written when; it must not know where a certificate comes from.
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
    """The three places of one storage. ``save`` blocks and is safe from any thread."""

    store: Store
    calendar: RenewalSchedule
    changes: ChangeFeed

    def save(self, subject: Subject, slot: Slot, certificate: Certificate, *, look: float, now: float) -> Certificate:
        """Write ``certificate`` over what ``slot`` saw, to be looked at first at ``look`` (Unix seconds).

        Returns the one that is stored then: another node's, where that was faster and lives as long. Raises
        ``StorageError``, and ``RecordRefused`` where another's is there that must not be replaced.
        """
        # Listed before it is stored, so that no kill between the two leaves it unlisted.
        self.calendar.add(ScheduledCheck(subject.id, look))
        while not self.store.replace(slot, certificate):
            slot = self.store.slot(subject.id)
            stored = slot.certificate
            if stored is not None and stored.serves(subject, now) and stored.not_after >= certificate.not_after:
                return stored
        with contextlib.suppress(StorageError):  # who misses it looks when the old certificate is overdue
            self.changes.announce(subject.id, now)
        return certificate
