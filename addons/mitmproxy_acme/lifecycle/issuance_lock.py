"""Turns: who orders a certificate, when several nodes want it at once.

This module knows leases, requests and the loop; it must not know how a certificate is ordered.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from ..core.certificate import Certificate
from ..core.errors import NoControlNode
from ..core.instrumentation import Instrumentation
from ..core.names import Subject
from ..core.renewal import describe_duration
from ..core.structured_logging import fields
from ..core.thread_pools import ThreadPools
from ..store.keys import lease_key
from ..store.lease import Lease
from ..store.store import Slot, Store
from .backoff_registry import BackoffRegistry
from .control_client import ControlClient
from .order_queue import QueuePlace
from .requester import Requester

logger = logging.getLogger(__name__)

# How often to look whether another node has the certificate: at first, and at last.
_LOOK_FOR_OTHERS, _LOOK_SLOWER = 0.1, 1.0
# Seconds: longer than any order takes. A lease may outlive its owner where a clock was wrong, or come from a backup.
_TOO_LONG = 300.0


class IssuanceLock:
    """The turns of one node on one storage. Use it from one event loop."""

    def __init__(
        self,
        store: Store,
        threads: ThreadPools,
        failures: BackoffRegistry,
        delegating: ControlClient | None,
        node: str,
        measures: Instrumentation,
    ) -> None:
        """With ``delegating`` this is a data node: it never has a turn, and asks a control node to order."""
        self._store = store
        self._threads = threads
        self._failures = failures
        self._delegating = delegating
        self._node = node
        self._measures = measures

    async def take(
        self,
        subject: Subject,
        news: Callable[[Slot], Certificate | None],
        place: QueuePlace,
        asker: Requester = Requester.OPERATOR,
    ) -> Lease | Certificate:
        """Return the right to order, or what another node ordered while this one waited for the right.

        ``news`` says what of a slot makes an order needless. With the right, ``place`` is entered: the caller leaves
        it. A data node asks for a ``PERSON`` to have it tried now, whatever failed before. Raises ``BackingOff`` where
        an earlier order failed, here or on another node, ``NoControlNode``, ``StorageError``.
        """
        lease = await self._lease(subject, place, asker)
        if lease is not None:
            return lease
        begun, pause, said = time.monotonic(), _LOOK_FOR_OTHERS, False
        try:
            while lease is None:
                await asyncio.sleep(pause)
                pause = min(1.3 * pause, _LOOK_SLOWER)
                if not said and time.monotonic() - begun > _TOO_LONG and self._delegating is None:
                    said = self._say_too_long(subject)
                if (certificate := news(await self._threads.storage(self._store.slot, subject.id))) is not None:
                    return certificate
                if (
                    self._delegating is None or asker is not Requester.PERSON
                ):  # whose control node forgets what is stored
                    await self._failures.check(subject)
                self._give_up(subject, time.monotonic() - begun)
                lease = await self._lease(subject, place)
            return lease
        finally:
            self._measures.lease_wait(time.monotonic() - begun)

    def _give_up(self, subject: Subject, seconds: float) -> None:
        """Let a data node wait no longer for control nodes that do not answer, or each name would be asked for ever."""
        if self._delegating is not None and seconds > _TOO_LONG:
            raise NoControlNode(f"{subject}: no control node has answered for {describe_duration(_TOO_LONG)}")

    def _say_too_long(self, subject: Subject) -> bool:
        key = lease_key(subject.name)
        logger.warning(
            "%s: not ordered, for another process has had the right to for %s; if there is none, delete %s from the "
            "storage (node %s)",
            *(subject, describe_duration(_TOO_LONG), key, self._node),
            extra=fields("lease_held", name=subject.id, node=self._node, key=key),
        )
        return True

    async def _lease(self, subject: Subject, place: QueuePlace, asker: Requester | None = None) -> Lease | None:
        """Try to get the lease. A data node asks a control node instead, whose queue counts."""
        if self._delegating is not None:
            await self._delegating.ask(subject, for_person=asker is Requester.PERSON)
            return None
        await place.enter()
        try:
            if (refusal := self._failures.known(subject)) is not None:  # of an order that was before it in the queue
                raise refusal
            # By the name: of two orders for it, with keys of two kinds, the second finds it validated.
            lease = await self._threads.storage(Lease.acquire, self._store.storage, subject.name, self._node)
        except BaseException:
            place.leave()
            raise
        if lease is None:  # another node orders it: wait for that outside the queue
            place.leave()
        return lease
