"""The state of one node and its cluster at one moment, for the gauges, ``/acme/status`` and the page alike.

This module knows where each value is read, and how long reading may take; it must not know how it is shown.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
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
from .certificate_rows import CertificateRow
from .inventory import Inventory
from .summary import Summary

# A storage that falls silent must not delay a page or a scrape for longer (seconds).
_WITHIN = 1.0
# Seconds for which a reading of the storage holds: the page asks every second. The limits of the CAs are up to
# thousands of records: they are read again when this node has ordered, and otherwise less often.
_CLUSTER_HOLDS, _BUDGETS_HOLD = 2.0, 30.0


@dataclass(frozen=True, slots=True)
class ClusterState:
    """What the storage holds about the cluster.

    ``nodes`` are up, this node among them. ``accounts`` (URLs) and ``budgets`` are by the CA's directory URL.
    ``unrevoked`` are certificates with stolen keys that are not revoked yet, with their backoff; None for one that is
    due.
    """

    nodes: tuple[Node, ...]
    accounts: Mapping[str, str | None]
    budgets: Mapping[str, tuple[Remaining, ...]]
    unrevoked: Mapping[ServerName, Backoff | None]


@dataclass(frozen=True, slots=True)
class CaState:
    """One CA of the options: the URL of the ``account``, its ``backoff`` as a whole, what its limits still allow."""

    name: str
    directory: str
    account: str | None
    backoff: Backoff | None
    budgets: tuple[Remaining, ...]


@dataclass(frozen=True, slots=True)
class NodeState:
    """One node and its cluster ``at`` one moment (Unix seconds).

    ``failing`` has the backoff of each name that cannot be ordered now; ``ordering`` the time since when each
    certificate is being ordered. ``managed`` has the stored certificate of each entry of ``acme_certificates``, None
    for one that has not been read. ``is_complete`` says that every stored certificate has been read once.
    """

    at: float
    node: Node
    orders: bool
    nodes: tuple[Node, ...]
    cas: tuple[CaState, ...]
    unrevoked: Mapping[ServerName, Backoff | None]
    storage_kind: str
    storage_trouble: str | None
    failing: Mapping[ServerName, Backoff]
    ordering: Mapping[ServerName, float]
    cache_size: int
    cache_limit: int
    is_complete: bool
    revision: int
    summary: Summary
    managed: Mapping[ServerName, CertificateRow | None]


class NodeStateReader:
    """Reads the state of a node. Use it from the manager's loop; any number of readers share one reading."""

    def __init__(self, manager: Manager, inventory: Inventory) -> None:
        self._manager = manager
        self._inventory = inventory
        self._readings: SingleFlight[str, None] = SingleFlight("cluster state")
        self._counts: SingleFlight[str, tuple[Summary, Mapping[ServerName, CertificateRow | None]]]
        self._counts = SingleFlight("inventory summary")
        self._cluster = ClusterState((manager.node,), {}, {}, {})
        self._cluster_read_at: float | None = None
        self._budgets_expire_at = 0.0
        manager.events.subscribe(self._on_event)

    async def read(self) -> NodeState:
        """Return the state now; while the storage is down or silent, what was read before. Raises nothing.

        What is in memory is current, what is in the storage at most some seconds old.
        """
        manager, inventory = self._manager, self._inventory
        cluster = await self._read_cluster()
        summary, managed = await self._counts.join("", lambda: manager.threads.background(self._count))
        return NodeState(
            at=manager.now(),
            node=manager.node,
            orders=manager.config.orders,
            nodes=cluster.nodes,
            cas=tuple(self._ca(ca, cluster) for ca in manager.cas),
            unrevoked=cluster.unrevoked,
            storage_kind=manager.config.storage.partition(":")[0],
            storage_trouble=manager.health.trouble_now,
            failing=inventory.failures(),
            ordering=manager.ordering(),
            cache_size=len(manager.cache),
            cache_limit=manager.config.cache_size,
            is_complete=inventory.complete,
            revision=inventory.revision,
            summary=summary,
            managed=managed,
        )

    def _count(self) -> tuple[Summary, Mapping[ServerName, CertificateRow | None]]:
        managed = {subject.id: self._inventory.get(subject.id) for subject in self._manager.config.managed}
        return self._inventory.summary(), managed

    def _ca(self, ca: ConfiguredCa, cluster: ClusterState) -> CaState:
        directory = ca.directory
        return CaState(
            name=ca.name,
            directory=directory,
            account=cluster.accounts.get(directory),
            backoff=self._inventory.failure_of_ca(directory),
            budgets=cluster.budgets.get(directory, ()),
        )

    async def _read_cluster(self) -> ClusterState:
        manager = self._manager
        if self._cluster_read_at is not None and 0 <= manager.now() - self._cluster_read_at < _CLUSTER_HOLDS:
            return self._cluster
        try:
            manager.health.require()
            async with asyncio.timeout(_WITHIN):
                await self._readings.join("", self._update_cluster)
        except StorageError as error:
            manager.health.trouble(error)
        except TimeoutError:
            pass  # the reading goes on, and its result is there for the next call
        return self._cluster

    async def _update_cluster(self) -> None:
        now = self._manager.now()
        if with_budgets := now >= self._budgets_expire_at:
            self._budgets_expire_at = now + _BUDGETS_HOLD  # set first: an order that ends meanwhile expires them again
        try:
            self._cluster = await self._manager.threads.storage(partial(self._fetch, with_budgets=with_budgets))
        except StorageError:
            self._budgets_expire_at = 0.0
            raise
        self._cluster_read_at = self._manager.now()

    def _fetch(self, *, with_budgets: bool) -> ClusterState:
        manager, store = self._manager, self._manager.store
        nodes = {node.id: node for node in (manager.node, *manager.nodes.list_up())}
        if not manager.config.orders:
            return ClusterState(tuple(nodes.values()), {}, {}, {})
        return ClusterState(
            nodes=tuple(nodes.values()),
            accounts={ca.directory: store.account_uri(ca.directory) for ca in manager.cas},
            budgets={ca.directory: ca.budgets.remaining() for ca in manager.cas}
            if with_budgets
            else self._cluster.budgets,
            unrevoked={id: store.backoff(revocation_scope(id)) for id in store.compromised_ids()},
        )

    def _on_event(self, event: Event) -> None:
        if isinstance(event, CertificateObtained | CertificateFailed):
            self._budgets_expire_at = 0.0
