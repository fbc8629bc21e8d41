"""Gauges: the state of a node as Prometheus' metric families.

This module knows what each value is called; it must not know where it is read, or how the text is written.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from prometheus_client.metrics_core import GaugeMetricFamily, InfoMetricFamily, Metric

from .certificate_rows import CertificateRow
from .node_state import CaState, NodeState
from .summary import Summary

PREFIX = "mitmproxy_acme_"

# The most managed certificates that have series of their own: the operator may list many.
_MOST_HOSTS = 1_000
_ROLES = ("standalone", "control", "data")


def families(state: NodeState) -> Iterator[Metric]:
    """Return the metric families of a state. Call it from any thread; it takes long with many managed certificates."""
    node = state.node
    yield InfoMetricFamily(
        f"{PREFIX}build",
        "The version of mitmproxy-acme, the node's role, and its id, which changes at each start.",
        {"version": node.version, "role": node.role, "node": node.id},
    )
    yield from _of_certificates(state.summary)
    yield from _of_managed(state)
    yield _gauge("names_failing", "Names that cannot be ordered now because their last order failed.").of(
        len(state.failing)
    )
    yield _gauge("orders_in_progress", "Certificates that this node is ordering, or awaits from another node.").of(
        len(state.ordering)
    )
    if state.orders:
        yield from _of_cas(state.cas)
    yield _gauge("cache_entries", "Names that have a certificate in memory.").of(state.cache_size)
    yield _gauge("cache_limit_entries", "The most names that may (acme_cache_size).").of(state.cache_limit)
    yield _gauge("storage_up", "Whether the storage works, reading and writing (1), or not (0).").of(
        state.storage_trouble is None
    )
    roles = Counter(node.role for node in state.nodes)
    nodes = _gauge("nodes", "Nodes of the cluster that are up, as this node last read in the storage.", "role")
    for role in _ROLES:
        nodes.of(roles[role], role)
    yield nodes


def _of_certificates(summary: Summary) -> Iterator[Metric]:
    states = _gauge(
        "certificates",
        "Certificates in the storage by state: valid, due (time to renew), expiring (due, and less than a third of the "
        "life left), idle (not renewed because no client asked for it), expired, unreadable.",
        "state",
    )
    for state, count in summary.counts.items():
        states.of(count, state.value)
    yield states
    text = "When the next of the stored certificates that are not idle expires, in Unix seconds."
    yield _gauge("earliest_not_after_timestamp_seconds", text).of(summary.soonest_expiry)
    text = "When the first of the stored certificates is due for renewal, in Unix seconds."
    yield _gauge("earliest_renewal_timestamp_seconds", text).of(summary.soonest_renewal)


def _of_managed(state: NodeState) -> Iterator[Metric]:
    text = "Whether every stored certificate has been read once (1), or they are still being counted (0)."
    yield _gauge("inventory_complete", text).of(state.is_complete)
    if state.is_complete:  # before that, a certificate that has not been read yet looks like a missing one
        text = "Managed certificates (acme_certificates) that are not in the storage."
        yield _gauge("managed_certificates_missing", text).of(sum(row is None for row in state.managed.values()))
    yield from _by_host(islice(state.managed.values(), _MOST_HOSTS))


def _by_host(rows: Iterable[CertificateRow | None]) -> Iterator[Metric]:
    of_managed = f"a managed certificate, by its first name (the first {_MOST_HOSTS} of acme_certificates)."
    ends = _gauge("certificate_not_after_timestamp_seconds", f"When it expires, in Unix seconds: {of_managed}", "host")
    due = _gauge(
        "certificate_renewal_timestamp_seconds", f"When it is due for renewal, in Unix seconds: {of_managed}", "host"
    )
    for row in rows:
        if row is not None and row.details is not None:
            ends.of(row.details.not_after, row.id)
            due.of(row.details.renew_at, row.id)
    yield ends
    yield due


def _of_cas(cas: Iterable[CaState]) -> Iterator[Metric]:
    """Yield what each CA still allows; for a limit with several scopes, the least."""
    text = "Whether no orders go to the CA for now (1), because it or the account there failed, or they do (0)."
    backing_off = _gauge("ca_backing_off", text, "ca")
    left = _gauge("ca_budget_left", "What the CA's limit still allows, in the scope with least left.", "ca", "limit")
    capacity = _gauge("ca_budget_capacity", "What the CA's limit allows at most.", "ca", "limit")
    for ca in cas:
        backing_off.of(ca.backoff is not None, ca.name)
        least = {budget.kind: budget for budget in sorted(ca.budgets, key=lambda budget: budget.left, reverse=True)}
        for kind, budget in least.items():
            left.of(budget.left, ca.name, kind)
            capacity.of(budget.limit.capacity, ca.name, kind)
    yield from (backing_off, left, capacity)


class _Gauge(GaugeMetricFamily):
    def of(self, value: float | None, *labels: str) -> "_Gauge":
        """Add a sample; None adds none."""
        if value is not None:
            self.add_metric(labels, value)
        return self


def _gauge(name: str, text: str, *labels: str) -> _Gauge:
    return _Gauge(PREFIX + name, text, labels=labels)
