"""Obtaining: the one path that orders a certificate, whoever asks: a handshake, the start, a renewal, a person.

This module knows the order of the steps, and who waits for whom; it must not know what is served meanwhile, or when a
renewal is due.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from acme_storage import StorageError

from ..core.backoff import Backoff
from ..core.certificate import Certificate
from ..core.errors import AcmeError, BackingOff
from ..core.names import ServerName, Subject
from ..core.single_flight import SingleFlight
from ..core.thread_pools import ThreadPools
from ..store.store import Slot, Store
from .admission import Admission
from .ask import AskClient
from .backoff_registry import BackoffRegistry
from .certificate_saver import CertificateSaver
from .failover import Failover
from .issuance_lock import IssuanceLock
from .lease_holder import held
from .order_queue import OrderQueue
from .requester import Requester

# Orders that are under way, or wait for their turn, beyond which visitors bring no new name. One holds some 20 KiB.
_MOST_ORDERS = 1_000


@dataclass(frozen=True, slots=True)
class Obtainer:
    """The orders of one node. ``adopt`` takes each certificate, and returns it. Use it from one event loop."""

    store: Store
    threads: ThreadPools
    failures: BackoffRegistry
    permission: AskClient | None
    turns: IssuanceLock
    issuance: Failover
    admission: Admission
    keeper: CertificateSaver
    adopt: Callable[[Subject, Certificate], Certificate]
    now: Callable[[], float]
    _orders: SingleFlight[ServerName, Certificate] = field(default_factory=lambda: SingleFlight("order"), init=False)
    _queue: OrderQueue = field(default_factory=OrderQueue, init=False)
    _own_queue: OrderQueue = field(default_factory=OrderQueue, init=False)
    _wishes: SingleFlight[ServerName, Certificate] = field(default_factory=lambda: SingleFlight("wish"), init=False)

    def __len__(self) -> int:
        """Return how many orders are under way."""
        return len(self._orders)

    async def obtain(
        self, subject: Subject, replacing: Certificate | None, asker: Requester, client: str | None = None
    ) -> Certificate:
        """Return a certificate that is not ``replacing``: stored meanwhile by another node, or ordered.

        Any number of callers share one order, and any number of nodes too. Raises ``IssuanceError`` (``BackingOff``
        while an earlier failure is too recent), ``NameNotAllowed``, ``StorageError``. ``client`` is the address of a
        ``VISITOR``.
        """
        return await self._orders.join(subject.id, lambda: self._obtain(subject, replacing, asker, client))

    def start(self, subject: Subject, asker: Requester, client: str | None) -> None:
        """Begin to obtain it, and return at once; its failure is logged."""
        self._orders.start(subject.id, lambda: self._obtain(subject, None, asker, client))

    async def obtain_for_person(self, subject: Subject, replacing: Certificate | None) -> Certificate:
        """Do the same for a person who says that it is to be tried now: no failure before counts, of name or CA.

        What is under way for the name is waited for; where it fails, it is tried once more. All persons who ask for
        the name meanwhile share that.
        """
        return await self._wishes.join(subject.id, lambda: self._fulfil(subject, replacing))

    def under_way(self) -> dict[ServerName, float]:
        """Return what is being ordered, or waited for while another node orders it, and for how many seconds."""
        return self._orders.under_way()

    async def wait_idle(self) -> None:
        """Wait until nothing is under way."""
        for flights in (self._wishes, self._orders, self.keeper):
            await flights.wait_idle()

    async def _fulfil(self, subject: Subject, replacing: Certificate | None) -> Certificate:
        await self.failures.override(subject)
        if (order := self._orders.get(subject.id)) is not None:
            with contextlib.suppress(AcmeError, StorageError):
                found = await order
                if replacing is None or found.fingerprint != replacing.fingerprint:
                    return found
            await self.failures.override(subject)
        return await self.obtain(subject, replacing, Requester.PERSON)

    async def _obtain(
        self, subject: Subject, replacing: Certificate | None, asker: Requester, client: str | None = None
    ) -> Certificate:
        if replacing is not None and replacing.serves(subject, self.now()):
            self.failures.note_served(subject, replacing.not_after)
        if (refusal := self.failures.known(subject)) is not None:
            raise refusal
        if self._is_for_visitor(subject, asker, replacing):
            self._require_room(subject, client)
        if self.permission is not None and not subject.managed:
            await self.permission.require(subject.name, anew=self._asker(subject, asker) is Requester.PERSON)
        if for_visitor := self._is_for_visitor(subject, asker, replacing):
            self.admission.admit(subject, client)
        asker = self._asker(subject, asker)
        # Visitors with unknown names wait for each other, and never keep the operator's own names waiting.
        queue = self._queue if for_visitor else self._own_queue
        with queue.place() as place:
            found = await self.turns.take(
                subject, lambda slot: slot.satisfying(subject, replacing, self.now()), place, asker
            )
            if isinstance(found, Certificate):
                return self.adopt(subject, found)
            async with held(found, self.threads):
                return await self._order(subject, replacing, asker)

    def _is_for_visitor(self, subject: Subject, asker: Requester, replacing: Certificate | None) -> bool:
        """Say whether only a visitor wants it, and it is a new name."""
        return self._asker(subject, asker) is Requester.VISITOR and replacing is None

    def _require_room(self, subject: Subject, client: str | None) -> None:
        """Raise ``LimitReached`` where the CAs' limits have nothing left for visitors, or ``ClientLimited`` where this
        one has brought too many names, or ``BackingOff`` where too many are under way: before anything is asked.
        """
        if len(self._orders) > _MOST_ORDERS:  # of which this is one
            raise BackingOff(f"{subject}: {_MOST_ORDERS} names are being ordered already", until=self.now())
        self.admission.require_client(subject, client)
        if (refusal := self.issuance.refusal_for_visitor(subject)) is not None:
            raise refusal

    async def _order(self, subject: Subject, replacing: Certificate | None, asker: Requester) -> Certificate:
        """Order under the lease, having looked again whether the work is still needed."""
        slot, backoffs = await self.threads.storage(self._look, subject)
        if (certificate := slot.satisfying(subject, replacing, self.now())) is not None:
            return self.adopt(subject, certificate)
        self.failures.require(subject, backoffs)
        begun = time.monotonic()
        for_visitor = self._asker(subject, asker) is Requester.VISITOR
        issued = await self.issuance.issue(subject, slot.certificate, for_visitor=for_visitor)
        kept = await self.keeper.keep(subject, slot, issued)
        await self.issuance.tell(subject, issued, time.monotonic() - begun, slot.certificate)
        return self.adopt(subject, kept)

    def _look(self, subject: Subject) -> tuple[Slot, Mapping[str, Backoff]]:
        """Return what is stored for a name, and its backoffs. Blocks."""
        return self.store.slot(subject.id), self.failures.read(subject)

    def _asker(self, subject: Subject, asker: Requester) -> Requester:
        """Return who the order is for now: a person may have come to wait for what a visitor began."""
        return Requester.PERSON if subject.id in self._wishes else asker
