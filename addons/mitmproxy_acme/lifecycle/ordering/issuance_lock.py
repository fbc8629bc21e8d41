"""Issuance lock: of several nodes that want the same certificate, one orders it.

This module knows leases and the loop; it must not know how a certificate is ordered.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from ...core.certificate import Certificate
from ...core.instrumentation import Instrumentation
from ...core.names import ServerName, Subject
from ...core.renewal import describe_duration
from ...core.structured_logging import fields
from ...core.thread_pools import ThreadPools
from ...store.keys import lease_key
from ...store.lease import Lease
from ...store.store import Store
from ..lease_holder import hold_lease
from .control_client import ControlClient
from .order_gate import OrderGate
from .order_queue import OrderQueue, QueuePlace
from .order_request import OrderRequest

logger = logging.getLogger(__name__)

# Seconds between two reads of what another node may have stored: at first, and at last.
_FIRST_PAUSE, _LAST_PAUSE = 0.1, 1.0
# Seconds: longer than any order takes. A lease may outlive its owner where a clock was wrong, or come from a backup.
_TOO_LONG = 300.0


@dataclass(frozen=True, slots=True)
class _Turn:
    """What the wait for the lease ended with; exactly one of the two is set."""

    lease: Lease | None = None
    certificate: Certificate | None = None


class IssuanceLock:
    """The lock of one node on one storage. Use it from one event loop."""

    def __init__(
        self,
        store: Store,
        threads: ThreadPools,
        gate: OrderGate,
        control: ControlClient | None,
        node: str,
        measures: Instrumentation,
        now: Callable[[], float],
    ) -> None:
        """With ``control`` this is a data node: it never gets the lease, and has a control node order."""
        self._store = store
        self._threads = threads
        self._gate = gate
        self._control = control
        self._node = node
        self._measures = measures
        self._now = now

    @contextlib.asynccontextmanager
    async def hold(self, request: OrderRequest, queue: OrderQueue[ServerName]) -> AsyncIterator[Certificate | None]:
        """Yield None with the lease held for the block, or the certificate that another node stored meanwhile.

        The lease comes with a place in ``queue``, which the block keeps; a data node takes none, as a control node has
        a queue. Raises ``BackingOff`` where an earlier order failed, here or on another node, ``NoControlNode``,
        ``StorageError``.
        """
        if self._control is not None:
            yield await self._measured(self._control.obtain(request))
            return
        with queue.place(request.subject.id) as place:
            turn = await self._take(request, place)
            if turn.lease is None:
                yield turn.certificate
                return
            async with hold_lease(turn.lease, self._threads):
                yield None

    async def _take(self, request: OrderRequest, place: QueuePlace[ServerName]) -> _Turn:
        lease = await self._try(request.subject, place)
        return _Turn(lease) if lease is not None else await self._measured(self._wait(request, place))

    async def _measured[T](self, wait: Awaitable[T]) -> T:
        begun = time.monotonic()
        try:
            return await wait
        finally:
            self._measures.lease_wait(time.monotonic() - begun)

    async def _wait(self, request: OrderRequest, place: QueuePlace[ServerName]) -> _Turn:
        """Wait until another node has stored the certificate, has failed, or has freed the lease."""
        subject, pause, logged, begun = request.subject, _FIRST_PAUSE, False, time.monotonic()
        while True:
            await asyncio.sleep(pause)
            pause = min(1.3 * pause, _LAST_PAUSE)
            if not logged and time.monotonic() - begun > _TOO_LONG:
                logged = self._log_too_long(subject)
            slot = await self._threads.storage(self._store.slot, subject.id)
            if (certificate := slot.satisfying(subject, request.replacing, self._now())) is not None:
                return _Turn(certificate=certificate)
            await self._gate.require_in_storage(subject)
            if (lease := await self._try(subject, place)) is not None:
                return _Turn(lease)

    def _log_too_long(self, subject: Subject) -> bool:
        key, duration = lease_key(subject.name), describe_duration(_TOO_LONG)
        logger.warning(
            "%s: not ordered: another process has held the lease for %s; if no such process runs, delete %s from the "
            "storage (node %s)",
            subject,
            duration,
            key,
            self._node,
            extra=fields("lease_held", name=subject.id, node=self._node, key=key),
        )
        return True

    async def _try(self, subject: Subject, place: QueuePlace[ServerName]) -> Lease | None:
        """Return the lease, or None while another node has it."""
        await place.enter()
        self._gate.require_in_memory(subject)  # an order that was before it in the queue may have failed
        # By the name: of two orders for it, with keys of two kinds, the second finds it validated.
        lease = await self._threads.storage(Lease.acquire, self._store.storage, subject.name, self._node)
        if lease is None:  # another node orders it: wait for that outside the queue
            place.leave()
        return lease
