"""Overview: the state of one node and its cluster, as one document.

This module knows where to look; it must not know who asks.
"""

from ..core.backoff import Backoff
from ..core.single_flight import SingleFlight
from ..lifecycle.configured_ca import ConfiguredCa
from ..lifecycle.manager import Manager
from ..store.nodes import Node
from ..store.rate_limiter import Remaining
from .cluster_state import CaState, ClusterState, ClusterStateReader
from .documents import Document, failure_of, timestamp
from .inventory import Inventory, Summary

# What is listed of each kind, the soonest first; all are counted.
_MOST = 100


class StatusReporter:
    """What ``GET /acme/status`` and the page show. Use it from one event loop."""

    def __init__(self, manager: Manager, inventory: Inventory, surroundings: ClusterStateReader) -> None:
        self._manager = manager
        self._inventory = inventory
        self._surroundings = surroundings
        self._summaries: SingleFlight[str, Summary] = SingleFlight("summary")  # one for all who ask meanwhile

    async def look(self) -> Document:
        """Return the state at this moment; of a storage that is down, what was known before. Raises nothing."""
        manager = self._manager
        seen = await self._surroundings.look()
        summary = await self._summaries.join("", lambda: manager.threads.operating(self._inventory.summary))
        return {
            "node": self._node(manager.node),
            "nodes": [self._node(node) for node in seen.nodes],
            "cas": [self._ca(ca, seen.of(ca.directory)) for ca in manager.cas],
            "storage": {
                "kind": manager.config.storage.partition(":")[0],
                "state": "down" if manager.health.trouble_now else "ok",
                "error": manager.health.trouble_now,
            },
            "certificates": {
                "total": summary.total,
                **{state.value: count for state, count in summary.counts.items()},
                "complete": self._inventory.complete,
                "revision": self._inventory.revision,
                "soonest_expiry_at": timestamp(summary.soonest_expiry) if summary.soonest_expiry else None,
                "soonest_renewal_at": timestamp(summary.soonest_renewal) if summary.soonest_renewal else None,
            },
            "ordering": self._ordering(),
            **self._failing(),
            "unrevoked": self._unrevoked(seen),
            "cache": {"size": len(manager.cache), "limit": manager.config.cache_size},
        }

    def _node(self, node: Node) -> Document:
        return {
            "id": node.id,
            "role": node.role,
            "version": node.version,
            "host": node.host,
            "since_at": timestamp(node.since),
            "self": node.id == self._manager.node.id,
        }

    def _ca(self, ca: ConfiguredCa, seen: CaState) -> Document:
        backoff = self._inventory.failure_of_ca(ca.directory)
        return {
            "name": ca.name,
            "directory": ca.directory,
            "account": seen.account,
            "state": "backing_off" if backoff else "ok",
            "error": backoff.reason if backoff else None,
            "retry_at": timestamp(backoff.until) if backoff else None,
            "budgets": [_budget(left) for left in seen.budgets],
        }

    def _unrevoked(self, seen: ClusterState) -> list[Document]:
        due = Backoff(0, self._manager.now(), "its CA is asked now")
        return [failure_of(id, backoff or due) for id, backoff in [*seen.unrevoked.items()][:_MOST]]

    def _ordering(self) -> list[Document]:
        begun = sorted(self._manager.ordering().items(), key=lambda item: item[1])
        return [{"host": id, "since_at": timestamp(since)} for id, since in begun[:_MOST]]

    def _failing(self) -> Document:
        names = self._inventory.failures()
        soonest = sorted(names.items(), key=lambda item: item[1].until)
        return {"failing": [failure_of(id, backoff) for id, backoff in soonest[:_MOST]], "failing_total": len(names)}


def _budget(left: Remaining) -> Document:
    return {
        "limit": left.kind.value,
        "scope": left.scope,
        "left": left.left,
        "capacity": left.limit.capacity,
        "full_at": timestamp(left.full_at),
    }
