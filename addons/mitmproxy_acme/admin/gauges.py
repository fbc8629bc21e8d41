"""Gauges: what is true at the moment of a scrape, as Prometheus' families.

This module knows where to look and what each value is called; it must not know who scrapes, or how text is written.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric

from ..core.names import ServerName
from ..lifecycle.configured_ca import ConfiguredCa
from ..lifecycle.manager import Manager
from ..store.nodes import Node
from ..store.rate_limiter import Remaining
from .certificate_rows import CertificateRow
from .cluster_state import ClusterState
from .inventory import Inventory

PREFIX = "mitmproxy_acme_"

# Managed certificates that have series of their own: the operator lists them, and may list many.
_MOST_HOSTS = 1_000
_ROLES = ("standalone", "control", "data")


@dataclass(frozen=True, slots=True)
class CaGauges:
    """What is true of one CA."""

    name: str
    backs_off: bool
    budgets: tuple[Remaining, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What must be read on the event loop. ``cas`` are none on a node that never talks to one."""

    node: Node
    nodes: dict[str, int]
    cas: tuple[CaGauges, ...]
    names_failing: int
    orders: int
    cache_entries: int
    cache_limit: int
    storage_up: bool
    complete: bool
    managed: tuple[ServerName, ...]


def look(manager: Manager, inventory: Inventory, seen: ClusterState) -> Snapshot:
    """Read what is true now. Call it on the manager's loop."""
    config = manager.config
    return Snapshot(
        node=manager.node,
        nodes=Counter(node.role for node in seen.nodes),
        cas=tuple(_of(ca, inventory, seen) for ca in manager.cas) if config.orders else (),
        names_failing=len(inventory.failures()),
        orders=len(manager.ordering()),
        cache_entries=len(manager.cache),
        cache_limit=config.cache_size,
        storage_up=manager.health.trouble_now is None,
        complete=inventory.complete,
        managed=tuple(subject.id for subject in config.managed),
    )


def _of(ca: ConfiguredCa, inventory: Inventory, seen: ClusterState) -> CaGauges:
    backs_off = inventory.failure_of_ca(ca.directory) is not None
    return CaGauges(ca.name, backs_off, seen.of(ca.directory).budgets)


def families(moment: Snapshot, inventory: Inventory) -> Iterator[Metric]:
    """Return what is true at ``moment``. It takes long where much is stored, and may be called from any thread."""
    node = moment.node
    yield InfoMetricFamily(
        f"{PREFIX}build",
        "What runs here: the version of mitmproxy-acme, and the node, whose id is new at each start.",
        {"version": node.version, "role": node.role, "node": node.id},
    )
    yield from _of_certificates(inventory)
    yield from _of_managed(moment, inventory)
    yield _gauge("names_failing", "Names that are left alone for now, because their last order failed.").of(
        moment.names_failing
    )
    yield _gauge("orders_in_progress", "Certificates that this node is ordering, or awaits from another node.").of(
        moment.orders
    )
    if moment.cas:
        yield from _of_cas(moment.cas)
    yield _gauge("cache_entries", "Names that have a certificate in memory.").of(moment.cache_entries)
    yield _gauge("cache_limit_entries", "The most names that may (acme_cache_size).").of(moment.cache_limit)
    yield _gauge("storage_up", "Whether the storage works, reading and writing (1), or not (0).").of(moment.storage_up)
    nodes = _gauge("nodes", "Nodes of the cluster that are up, as this node last saw them in the storage.", "role")
    for role in _ROLES:
        nodes.of(moment.nodes.get(role, 0), role)
    yield nodes


def _of_certificates(inventory: Inventory) -> Iterator[Metric]:
    summary = inventory.summary()
    states = _gauge(
        "certificates",
        "Certificates in the storage by state: valid, due (time to renew), expiring (due, and less than a third of the "
        "life left), expired, unreadable.",
        "state",
    )
    for state, count in summary.counts.items():
        states.of(count, state.value)
    yield states
    text = "When the first of the stored certificates expires that has not yet, in Unix seconds."
    yield _gauge("earliest_not_after_timestamp_seconds", text).of(summary.soonest_expiry)
    text = "When the first of the stored certificates is to be renewed, in Unix seconds."
    yield _gauge("earliest_renewal_timestamp_seconds", text).of(summary.soonest_renewal)


def _of_managed(moment: Snapshot, inventory: Inventory) -> Iterator[Metric]:
    rows = {id: inventory.get(id) for id in moment.managed}
    complete = "Whether all that is stored has been read once (1); until then (0) certificates are still being counted."
    yield _gauge("inventory_complete", complete).of(moment.complete)
    if moment.complete:  # before, one that was not read yet looks like one that is not there
        missing = "Managed certificates (acme_certificates) that are not in the storage."
        yield _gauge("managed_certificates_missing", missing).of(sum(row is None for row in rows.values()))
    yield from _by_host(islice(rows.values(), _MOST_HOSTS))


def _by_host(rows: Iterable[CertificateRow | None]) -> Iterator[Metric]:
    of_managed = f"a managed certificate, by its first name (the first {_MOST_HOSTS} of acme_certificates)."
    ends = _gauge("certificate_not_after_timestamp_seconds", f"When it expires, in Unix seconds: {of_managed}", "host")
    due = _gauge(
        "certificate_renewal_timestamp_seconds", f"When it is to be renewed, in Unix seconds: {of_managed}", "host"
    )
    for row in rows:
        if row is not None and row.facts is not None:
            ends.of(row.facts.not_after, row.id)
            due.of(row.facts.renew_at, row.id)
    yield ends
    yield due


def _of_cas(cas: Iterable[CaGauges]) -> Iterator[Metric]:
    """Yield what each CA still allows; of several scopes of one limit, of the one that has the least left."""
    text = "Whether the CA is left alone for now (1), because it, or the account there, failed, or not (0)."
    backing_off = _gauge("ca_backing_off", text, "ca")
    left = _gauge("ca_budget_left", "What the CA's limit still allows, where least is left.", "ca", "limit")
    capacity = _gauge("ca_budget_capacity", "What the CA's limit allows at most.", "ca", "limit")
    for ca in cas:
        backing_off.of(ca.backs_off, ca.name)
        least = {budget.kind: budget for budget in sorted(ca.budgets, key=lambda budget: budget.left, reverse=True)}
        for kind, budget in least.items():
            left.of(budget.left, ca.name, kind)
            capacity.of(budget.limit.capacity, ca.name, kind)
    yield from (backing_off, left, capacity)


class _Gauge(GaugeMetricFamily):
    def of(self, value: float | None, *labels: str) -> "_Gauge":
        """Add a value; None is no sample, for what there is not."""
        if value is not None:
            self.add_metric(labels, value)
        return self


def _gauge(name: str, text: str, *labels: str) -> _Gauge:
    return _Gauge(PREFIX + name, text, labels=labels)
