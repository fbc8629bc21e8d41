"""Turns: who orders a certificate, when several nodes want it at once.

This module knows leases, requests and the loop; it must not know how a certificate is ordered.
"""

import asyncio
import time
from collections.abc import Callable

from .certificate import Certificate
from .delegating import Delegating
from .failures import Failures
from .keeping.lease import Lease
from .keeping.store import Slot, Store
from .measures import Measures
from .names import Subject
from .threads import Threads

# How often to look whether another node has the certificate: at first, and at last.
_LOOK_FOR_OTHERS, _LOOK_SLOWER = 0.1, 1.0


class Turns:
    """The turns of one node on one storage. Use it from one event loop."""

    def __init__(
        self,
        store: Store,
        threads: Threads,
        failures: Failures,
        delegating: Delegating | None,
        node: str,
        measures: Measures,
    ) -> None:
        """With ``delegating`` this is a data node: it never has a turn, and asks a control node to order."""
        self._store = store
        self._threads = threads
        self._failures = failures
        self._delegating = delegating
        self._node = node
        self._measures = measures

    async def take(self, subject: Subject, news: Callable[[Slot], Certificate | None]) -> Lease | Certificate:
        """Return the right to order, or what another node ordered while this one waited for the right.

        ``news`` says what of a slot makes an order needless. Raises ``BackingOff`` where the other node failed,
        ``NoControlNode``, ``StorageError``.
        """
        begun, pause = time.monotonic(), _LOOK_FOR_OTHERS
        lease = await self._lease(subject)
        if lease is not None:
            return lease
        try:
            while lease is None:
                await asyncio.sleep(pause)
                pause = min(1.3 * pause, _LOOK_SLOWER)
                if (certificate := news(await self._threads.storage(self._store.slot, subject.id))) is not None:
                    return certificate
                await self._failures.check(subject)
                lease = await self._lease(subject)
            return lease
        finally:
            self._measures.lease_wait(time.monotonic() - begun)

    async def _lease(self, subject: Subject) -> Lease | None:
        if self._delegating is None:
            # By the name: of two orders for it, with keys of two kinds, the second finds it validated.
            return await self._threads.storage(Lease.acquire, self._store.storage, subject.name, self._node)
        await self._delegating.ask(subject)
        return None
