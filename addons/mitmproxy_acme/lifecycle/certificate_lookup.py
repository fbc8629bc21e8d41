"""Lookup: what is stored for a name, read once however many ask at the same time.

This module knows storage and the calendar; it must not know what is done where nothing is stored.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from ..core.certificate import Certificate
from ..core.names import ServerName, Subject
from ..core.renewal import RenewBefore, renew_at
from ..core.single_flight import Flights
from ..core.thread_pools import Threads
from ..store.renewal_schedule import Calendar, Entry
from ..store.store import Store
from .admission import Admission


@dataclass(frozen=True, slots=True)
class Found:
    """The stored certificate that can be served, if there is one; ``known`` says whether any was ever stored."""

    certificate: Certificate | None
    known: bool


@dataclass(frozen=True, slots=True)
class Lookup:
    """The looks of one node. ``is_wanted`` judges a certificate. Use it from one event loop."""

    store: Store
    calendar: Calendar
    threads: Threads
    wish: RenewBefore
    is_wanted: Callable[[Subject, Certificate], bool]
    on_scheduled: Callable[[float], None]
    now: Callable[[], float]
    admission: Admission
    _looks: Flights[ServerName, Found] = field(default_factory=lambda: Flights("load"), init=False)

    def __len__(self) -> int:
        """Return how many looks are under way."""
        return len(self._looks)

    async def find(self, subject: Subject) -> Found:
        """Return what is stored for it. Raises ``StorageError``, ``Sealed``."""
        return await self._looks.join(subject.id, lambda: self._find(subject))

    async def find_for_visitor(self, subject: Subject) -> Found:
        """Do the same; raises ``BackingOff`` where visitors have asked for too many names that have none."""
        if subject.managed:
            return await self.find(subject)
        self.admission.require_look(subject)
        found = await self.find(subject)
        if not found.known:
            self.admission.count_fruitless()
        return found

    async def landed(self) -> None:
        """Wait until nothing is under way."""
        await self._looks.landed()

    async def _find(self, subject: Subject) -> Found:
        slot = await self.threads.storage(self.store.slot, subject.id)
        certificate, known = slot.certificate, slot.record is not None or slot.corrupt
        if certificate is None or not certificate.serves(subject, self.now()):
            return Found(None, known)
        overdue = renew_at(certificate, self.wish, None) <= self.now()
        if overdue or not self.is_wanted(subject, certificate):
            # The calendar may not list it (a killed process, an import). One entry too many is harmless.
            await self.threads.storage(self.calendar.add, Entry(subject.id, self.now()))
            self.on_scheduled(self.now())
        return Found(certificate, known)
