"""Control client: how a data node has its certificates ordered by a control node.

This module knows issuance requests and the loop; it must not know how a control node fulfils them.
"""

import logging

from ...core.errors import BackingOff, NoControlNode
from ...core.names import Subject
from ...core.structured_logging import fields
from ...core.thread_pools import ThreadPools
from ...store.issuance_requests import IssuanceRequests
from ...store.nodes import Nodes

logger = logging.getLogger(__name__)


class ControlClient:
    """Asks the control nodes through the storage. Use it from one event loop."""

    def __init__(self, requests: IssuanceRequests, nodes: Nodes, threads: ThreadPools) -> None:
        self._requests = requests
        self._nodes = nodes
        self._threads = threads
        self._alone = False

    async def ask(self, subject: Subject, *, for_person: bool = False) -> None:
        """Have a control node order it; asking again while it does changes nothing.

        With ``for_person`` it is tried now, whatever was refused before; say so only once.

        Raises ``NoControlNode`` where no control node is up, ``BackingOff`` with the reason where one has refused,
        ``StorageError``.
        """
        await self._require_control(subject)
        if (refusal := await self._threads.storage(self._requests.ask, subject.id, for_person)) is not None:
            raise BackingOff(f"{subject}: the control node has no certificate: {refusal.reason}", until=refusal.until)

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
