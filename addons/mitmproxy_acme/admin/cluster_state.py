"""Surroundings: what a node reads in the storage about its cluster and its accounts, for whoever looks at it.

This module knows where to look, and how long a look may take; it must not know what is shown of it.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from acme_storage import StorageError

from ..core.backoff import Backoff
from ..core.events import CertificateFailed, CertificateObtained, Event
from ..core.names import ServerName
from ..core.single_flight import SingleFlight
from ..lifecycle.configured_ca import ConfiguredCa
from ..lifecycle.manager import Manager
from ..store.keys import revocation_scope
from ..store.nodes import Node
from ..store.rate_limiter import Remaining

# A storage that falls silent at this moment must hold up neither a page nor a scrape.
_WITHIN = 1.0
# Who watches looks once a second; nobody needs all of this to be as fresh as that. The budgets are up to thousands of
# records, so they are read again where this node ordered, and else only now and then.
_HOLDS, _BUDGETS_HOLD = 2.0, 30.0


@dataclass(frozen=True, slots=True)
class CaState:
    """What is stored of one CA: the URL of the ``account`` there, and what is left of its limits."""

    account: str | None = None
    budgets: tuple[Remaining, ...] = ()


@dataclass(frozen=True, slots=True)
class ClusterState:
    """``nodes`` that are up, this one among them; what is stored of each CA, by its directory URL.

    ``unrevoked`` are the certificates whose stolen keys are not revoked yet, with why and until when they are left
    alone; None for one that is due.
    """

    nodes: tuple[Node, ...]
    cas: Mapping[str, CaState] = field(default_factory=dict)
    unrevoked: Mapping[ServerName, Backoff | None] = field(default_factory=dict)

    def of(self, directory: str) -> CaState:
        """Return what was seen of a CA; nothing, where nobody has looked yet."""
        return self.cas.get(directory, CaState())


class ClusterStateReader:
    """What was seen last. Use it from one event loop; any number of looks share one reading."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._looks: SingleFlight[str, None] = SingleFlight("surroundings")
        self._seen = ClusterState((manager.node,))
        self._seen_at: float | None = None
        self._budgets_end = 0.0
        manager.events.subscribe(self._happened)

    async def look(self) -> ClusterState:
        """Return what is true now, at most some seconds old; where the storage does not say in time, what was before.

        What it says later is there for the next look.
        """
        manager = self._manager
        if self._seen_at is not None and 0 <= manager.now() - self._seen_at < _HOLDS:
            return self._seen
        try:
            manager.health.require()
            async with asyncio.timeout(_WITHIN):
                await self._looks.join("", self._look_again)
        except StorageError as error:
            manager.health.trouble(error)
        except TimeoutError:
            pass
        return self._seen

    async def _look_again(self) -> None:
        now = self._manager.now()
        if again := now >= self._budgets_end:
            self._budgets_end = now + _BUDGETS_HOLD  # an order that ends while they are read has them read again
        try:
            self._seen = await self._manager.threads.storage(partial(self._read, again=again))
        except StorageError:
            self._budgets_end = 0.0
            raise
        self._seen_at = self._manager.now()

    def _read(self, *, again: bool) -> ClusterState:
        manager = self._manager
        nodes = {node.id: node for node in (manager.node, *manager.nodes.list_up())}
        cas = {ca.directory: self._of(ca, again) for ca in manager.cas} if manager.config.orders else {}
        store = manager.store
        stolen = store.compromised_ids() if manager.config.orders else []
        unrevoked = {id: store.backoff(revocation_scope(id)) for id in stolen}
        return ClusterState(tuple(nodes.values()), cas, unrevoked)

    def _of(self, ca: ConfiguredCa, again: bool) -> CaState:
        budgets = ca.budgets.remaining() if again else self._seen.of(ca.directory).budgets
        return CaState(self._manager.store.account_uri(ca.directory), budgets)

    def _happened(self, event: Event) -> None:
        if isinstance(event, CertificateObtained | CertificateFailed):
            self._budgets_end = 0.0
