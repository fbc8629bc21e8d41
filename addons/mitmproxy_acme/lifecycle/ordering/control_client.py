"""Control client: how a data node has its certificates ordered by a control node.

This module knows issuance requests and the loop; it must not know how a control node fulfils them.
"""

import asyncio
import logging
import time
from collections.abc import Callable

from ...core.certificate import Certificate
from ...core.errors import BackingOff, NoControlNode
from ...core.names import Subject
from ...core.renewal import describe_duration
from ...core.structured_logging import fields
from ...core.thread_pools import ThreadPools
from ...store.issuance_requests import ASKED_FOR, IssuanceRequests
from ...store.nodes import Nodes
from ...store.store import Store
from .order_gate import OrderGate
from .order_request import OrderRequest, Requester
from .unusable_answers import UnusableAnswers

logger = logging.getLogger(__name__)

# Seconds between two reads of what a control node may have stored: at first, and at last.
_FIRST_PAUSE, _LAST_PAUSE = 0.1, 1.0
# Seconds: longer than any order takes.
_TOO_LONG = 300.0
# Answers that change nothing before one is believed: a storage that comes back as an older copy has lost requests too.
_ANSWERS = 2


class ControlClient:
    """Asks the control nodes through the storage. Use it from one event loop."""

    def __init__(
        self,
        requests: IssuanceRequests,
        nodes: Nodes,
        store: Store,
        threads: ThreadPools,
        gate: OrderGate,
        unusable: UnusableAnswers,
        now: Callable[[], float],
    ) -> None:
        self._requests = requests
        self._nodes = nodes
        self._store = store
        self._threads = threads
        self._gate = gate
        self._unusable = unusable
        self._now = now
        self._alone = False

    async def obtain(self, request: OrderRequest) -> Certificate:
        """Return the certificate that a control node stores; for a ``PERSON`` it is tried now, whatever failed before.

        Raises ``BackingOff`` where an order has failed, or where a control node finds good what is stored and this node
        does not (``UnusableAnswers``); ``NoControlNode``, ``RecordRefused``, ``StorageError``.
        """
        for_person = request.requester is Requester.PERSON
        if not for_person and (found := await self._instead_of_asking(request)) is not None:
            return found
        open_request = _OpenRequest()
        open_request.asked(is_new=await self.ask(request.subject, for_person=for_person))
        return await self._wait(request, open_request)

    async def ask(self, subject: Subject, *, for_person: bool = False) -> bool:
        """Have a control node order it; asking again while it does changes nothing. Return whether none was asked yet.

        With ``for_person`` it is tried now, whatever was refused before; say so only once.

        Raises ``NoControlNode`` where no control node is up, ``BackingOff`` with the reason where one has refused,
        ``StorageError``.
        """
        await self._require_control(subject)
        asked = await self._threads.storage(self._requests.ask, subject.id, for_person)
        if (refusal := asked.refusal) is not None:
            raise BackingOff(f"{subject}: the control node has no certificate: {refusal.reason}", until=refusal.until)
        return asked.is_new

    async def _instead_of_asking(self, request: OrderRequest) -> Certificate | None:
        """Return what is stored by now, or None to ask. Raises ``BackingOff`` while asking is put off."""
        if request.subject.id not in self._unusable:
            return None
        slot = await self._threads.storage(self._store.slot, request.subject.id)
        if (certificate := slot.satisfying(request.subject, request.replacing, self._now())) is not None:
            return certificate
        self._unusable.repeat(request, slot.certificate)
        return None

    async def _wait(self, request: OrderRequest, open_request: "_OpenRequest") -> Certificate:
        """Look and ask again until the certificate is there."""
        subject, pause, begun = request.subject, _FIRST_PAUSE, time.monotonic()
        while True:
            await asyncio.sleep(pause)
            pause = min(1.3 * pause, _LAST_PAUSE)
            slot = await self._threads.storage(self._store.slot, subject.id)
            if (certificate := slot.satisfying(subject, request.replacing, self._now())) is not None:
                return certificate
            if open_request.answers >= _ANSWERS and slot.certificate is not None:
                raise self._unusable.remember(request, slot.certificate)
            if request.requester is not Requester.PERSON:  # for a person the control node clears what is stored
                await self._gate.require_in_storage(subject)
            if time.monotonic() - begun > _TOO_LONG:  # it would ask for each name for ever
                raise NoControlNode(f"{subject}: no control node has answered for {describe_duration(_TOO_LONG)}")
            open_request.asked(is_new=await self.ask(subject))

    async def _require_control(self, subject: Subject) -> None:
        alone = not await self._threads.storage(self._nodes.control_is_up)
        if alone and not self._alone:
            logger.warning(
                "no control node is up, so nothing is ordered; start one with acme_role=control on this storage",
                extra=fields("control_down"),
            )
        elif self._alone and not alone:
            logger.warning("a control node is up again", extra=fields("control_up"))
        self._alone = alone
        if alone:
            raise NoControlNode(f"{subject}: no control node is up to order it")


class _OpenRequest:
    """Counts how often a request was answered: it is gone before it can have ended by itself."""

    def __init__(self) -> None:
        self.answers = 0
        self._asked_at: float | None = None  # None while another node asks: it may end at any time

    def asked(self, *, is_new: bool) -> None:
        if not is_new:
            return
        now = time.monotonic()
        if self._asked_at is not None and now - self._asked_at < ASKED_FOR / 2:
            self.answers += 1
        self._asked_at = now
