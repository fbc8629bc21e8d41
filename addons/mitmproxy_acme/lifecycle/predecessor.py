"""Predecessor: the storage and the orders of this node from before ``acme_storage`` was changed.

For half a minute nothing is ordered that is stored there, or is being ordered; and the CA's validations of those orders
are answered. This module knows what to ask them; it must not know how an order is made.
"""

import asyncio
from collections.abc import Awaitable, Callable

from acme_storage import StorageError

from ..core.certificate import Certificate
from ..core.errors import RecordRefused
from ..core.names import ServerName, Subject
from ..core.thread_pools import ThreadPools
from ..store.store import Store
from .storage_health import StorageHealth

# Seconds: longer than an order takes, and than the other nodes and a copy (``copy --follow``) need to follow.
ASKED_FOR = 30.0


class Predecessor:
    """What an earlier manager holds. Use it from one event loop."""

    def __init__(
        self,
        store: Store,
        threads: ThreadPools,
        health: StorageHealth,
        look_up: Callable[[ServerName], Awaitable[None]],
        order_of: Callable[[ServerName], asyncio.Future[Certificate] | None],
        now: Callable[[], float],
    ) -> None:
        """``look_up`` waits for a lookup of an id, which may begin an order; ``order_of`` returns an order."""
        self.store = store
        self.threads = threads
        self.health = health
        self._look_up = look_up
        self._order_of = order_of
        self._now = now
        self._closed = False

    @property
    def is_asked(self) -> bool:
        """Whether it still counts: nothing of it may be used any more once it is closed."""
        return not self._closed

    def close(self) -> None:
        """Ask it nothing more, and let go of what the earlier manager holds in memory."""
        self._closed = True
        self._look_up, self._order_of = _no_lookup, _no_order

    async def find(self, subject: Subject, replacing: Certificate | None) -> Certificate | None:
        """Return a certificate that makes an order needless: from an order that is under way, or stored.

        Raises what such an order raises: another one would fail too.
        """
        if self._closed:
            return None
        await self._look_up(subject.id)
        if (order := self._order_of(subject.id)) is not None:
            found = await order
            if replacing is None or found.fingerprint != replacing.fingerprint:
                return found
        if self._closed:
            return None
        try:
            slot = await self.threads.storage(self.store.slot, subject.id)
        except (StorageError, RecordRefused):  # the new storage is what counts
            return None
        return slot.satisfying(subject, replacing, self._now())


async def _no_lookup(id: ServerName) -> None:
    """Wait for nothing."""


def _no_order(id: ServerName) -> None:
    """Know no order."""
