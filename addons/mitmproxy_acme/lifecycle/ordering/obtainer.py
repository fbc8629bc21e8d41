"""Obtainer: the one way to a new certificate, for a handshake, the start, a renewal and a person alike.

This module knows the order of the steps, and which callers share an order; it must not know what is served meanwhile,
or when a renewal is due.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from acme_storage import StorageError

from ...core.backoff import Backoff
from ...core.certificate import Certificate
from ...core.errors import AcmeError
from ...core.names import ServerName, Subject
from ...core.single_flight import SingleFlight
from ...core.thread_pools import ThreadPools
from ...store.store import Slot, Store
from ..cache import Cache
from ..lost_records import LostRecords
from ..predecessor import Predecessor
from .backoff_registry import BackoffRegistry
from .certificate_saver import CertificateSaver
from .failover import Failover
from .issuance_lock import IssuanceLock
from .order_gate import OrderGate
from .order_queue import OrderQueue
from .order_request import OrderRequest, Requester


@dataclass(frozen=True, slots=True)
class Obtainer:
    """The orders of one node. Use it from one event loop."""

    store: Store
    threads: ThreadPools
    backoffs: BackoffRegistry
    gate: OrderGate
    lock: IssuanceLock
    failover: Failover
    saver: CertificateSaver
    cache: Cache
    lost: LostRecords
    now: Callable[[], float]
    predecessor: Predecessor | None = None
    _orders: SingleFlight[ServerName, Certificate] = field(default_factory=lambda: SingleFlight("order"), init=False)
    _by_person: SingleFlight[ServerName, Certificate] = field(
        default_factory=lambda: SingleFlight("order by a person"), init=False
    )
    _visitors: OrderQueue[ServerName] = field(default_factory=OrderQueue, init=False)
    _others: OrderQueue[ServerName] = field(default_factory=OrderQueue, init=False)

    async def obtain(self, request: OrderRequest) -> Certificate:
        """Return a certificate that is not ``request.replacing``: stored meanwhile by another node, or ordered.

        All callers share one order, and all nodes too. Raises ``IssuanceError`` (``BackingOff`` while an earlier
        failure is too recent), ``NameNotAllowed``, ``NoControlNode``, ``RecordRefused``, ``StorageError``.
        """
        return await self._orders.join(request.subject.id, lambda: self._obtain(request))

    def start(self, request: OrderRequest) -> None:
        """Begin to obtain it, and return at once; its failure is logged."""
        self._orders.start(request.subject.id, lambda: self._obtain(request))

    async def obtain_for_person(self, subject: Subject, replacing: Certificate | None) -> Certificate:
        """Do the same for a person who asks for an attempt now: no earlier failure counts, of the name or of a CA.

        An order that is under way is awaited; where it fails, there is one more attempt. All persons who ask for the
        name meanwhile share that.
        """
        return await self._by_person.join(subject.id, lambda: self._obtain_for_person(subject, replacing))

    def under_way(self) -> dict[ServerName, float]:
        """Return what is being ordered, or awaited from another node, and for how many seconds."""
        return self._orders.under_way()

    def order_of(self, id: ServerName) -> asyncio.Future[Certificate] | None:
        """Return the order for an id that is under way."""
        return self._orders.get(id)

    async def wait_idle(self) -> None:
        """Wait until nothing is under way."""
        await self._by_person.wait_idle()
        await self._orders.wait_idle()
        await self.saver.wait_idle()

    async def _obtain_for_person(self, subject: Subject, replacing: Certificate | None) -> Certificate:
        was_under_way = subject.id in self._orders
        await self.backoffs.override(subject)
        order = self._orders.get(subject.id)
        if order is not None:
            self._visitors.hurry(subject.id)
            with contextlib.suppress(AcmeError, StorageError):
                found = await order
                if replacing is None or found.fingerprint != replacing.fingerprint:
                    return found
        if order is not None or was_under_way:  # it may have failed since the failures were overridden
            await self.backoffs.override(subject)
        return await self.obtain(OrderRequest(subject, Requester.PERSON, replacing))

    async def _obtain(self, request: OrderRequest) -> Certificate:
        if self.predecessor is not None and (found := await self.predecessor.find(request.subject, request.replacing)):
            slot = await self.threads.storage(self.store.slot, request.subject.id)
            return self.cache.put(request.subject, await self.saver.save(request.subject, slot, found))
        await self.gate.require(self._current(request), len(self._orders))
        request = self._current(request)
        # Visitors with new names wait for each other, and never keep the operator's own names waiting.
        queue = self._visitors if request.is_new_name else self._others
        async with self.lock.hold(request, queue) as found:
            if found is not None:
                return self.cache.put(request.subject, found)
            return await self._order(self._current(request))

    async def _order(self, request: OrderRequest) -> Certificate:
        """Order under the lease, unless what is stored now makes it needless."""
        subject = request.subject
        slot, backoffs = await self.threads.storage(self._read, subject)
        if (certificate := slot.satisfying(subject, request.replacing, self.now())) is not None:
            return self.cache.put(subject, certificate)
        if (held := await self.lost.find(subject, slot, request.replacing)) is not None:
            return held
        self.gate.require_with(subject, backoffs)
        begun = time.monotonic()
        for_visitor = request.requester is Requester.VISITOR
        issued = await self.failover.issue(subject, slot.certificate, for_visitor=for_visitor)
        saved = await self.saver.save(subject, slot, issued)
        await self.failover.report_success(subject, issued, time.monotonic() - begun, slot.certificate)
        return self.cache.put(subject, saved)

    def _read(self, subject: Subject) -> tuple[Slot, Mapping[str, Backoff]]:
        """Return what is stored for a name, and its backoffs, in one turn of a thread. Blocks."""
        return self.store.slot(subject.id), self.backoffs.read(subject)

    def _current(self, request: OrderRequest) -> OrderRequest:
        """Return the request as it is now: a person may have come to wait for what a visitor began."""
        return replace(request, requester=Requester.PERSON) if request.subject.id in self._by_person else request
