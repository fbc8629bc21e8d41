"""Metrics: what is counted and timed, for Prometheus.

This module knows Prometheus' client library and what each counter is called; it must not know how a scrape travels, or
who measures. What is true only at the moment of a scrape is in ``gauges``. No label has a value that strangers invent.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from ..ca.problems import MEANINGS
from ..core.errors import IssuanceError
from ..core.events import CertificateExpiring, CertificateObtained, CertificateRemoved, Event, ExpiredRemoved
from ..core.instrumentation import Handshake, Instrumentation
from ..core.revocation import REASONS
from ..core.single_flight import SingleFlight
from ..core.thread_pools import ThreadPools
from . import gauges
from .gauges import PREFIX
from .node_state import NodeState
from .traffic import HandshakeCounts

# Upper bounds in seconds: how long a person waits, a CA takes, and a call of a store takes (it ends after 2 s).
_WAITS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60)
_ORDERS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 180)
_CALLS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)

_OPERATIONS = ("get", "put", "swap", "delete", "keys")
_OTHER = "other"


@dataclass(frozen=True, slots=True)
class Exposition:
    """A reply to a scrape: its body, and its ``Content-Type``."""

    body: bytes
    content_type: str


class Metrics(Instrumentation):
    """The metrics of one process, in a registry of their own. They outlive a ``Runtime``, as counters should.

    The methods are those of ``Instrumentation``; subscribe ``happened`` to each manager's events.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._scrapes: SingleFlight[str, Exposition] = SingleFlight("scrape")
        ProcessCollector(registry=self._registry)
        self._make_counters()
        self._bind_handshakes()
        self._bind_storage()

    def cache(self, *, hit: bool) -> None:
        self._looked_for["hit" if hit else "miss"] += 1

    def handshake(self, result: Handshake) -> None:
        self._handshakes[result] += 1

    def held(self, seconds: float) -> None:
        self._held.observe(seconds)

    def order(self, ca: str, seconds: float, error: IssuanceError | None) -> None:
        self._orders.labels(ca, "failure" if error else "success").inc()
        self._order_duration.labels(ca).observe(seconds)
        if error is not None:
            self._order_failures.labels(ca, _kind(error)).inc()

    def lease_wait(self, seconds: float) -> None:
        self._lease_wait.observe(seconds)

    def challenge(self, *, known: bool) -> None:
        (self._answered if known else self._unknown).inc()

    def storage(self, operation: str, seconds: float, *, failed: bool) -> None:
        operation = operation if operation in _OPERATIONS else _OTHER
        self._calls[operation].observe(seconds)
        if failed:
            self._errors[operation].inc()

    def happened(self, event: Event) -> None:
        """Count what happened to a certificate."""
        match event:
            case CertificateObtained():
                self._obtained.labels(event.ca, "renewal" if event.renewal else "first").inc()
            case CertificateExpiring():
                self._expiring.inc()
            case CertificateRemoved():
                self._removed.labels(_revocation(event.revocation)).inc()
            case ExpiredRemoved():
                self._expired_removed.inc(len(event.ids))

    def handshake_counts(self) -> HandshakeCounts:
        """Return what was counted so far, for the page."""
        (family,) = self._held.collect()
        up_to = [(float(s.labels["le"]), int(s.value)) for s in family.samples if s.name.endswith("_bucket")]
        below = (0, *(count for _, count in up_to))
        holds = {wait: count - less for (wait, count), less in zip(up_to, below, strict=False)}
        return HandshakeCounts(dict(self._handshakes), holds)

    async def exposition(self, state: NodeState, threads: ThreadPools, *, accept: str = "") -> Exposition:
        """Return the reply to a scrape: OpenMetrics if the ``Accept`` header asks for it, else Prometheus' text.

        Call it on the event loop; ``threads.background`` does the work. Scrapes at the same time share it. It raises
        nothing while the threads are open.
        """
        return await self._scrapes.join(accept, lambda: threads.background(self._write, state, accept))

    def _write(self, state: NodeState, accept: str) -> Exposition:
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # a malformed version in the header, such as version=abc
            encode, content_type = choose_encoder("")
        return Exposition(encode(_Everything(self._registry, self._plain(), state)), content_type)

    def _make_counters(self) -> None:
        counter, histogram = self._counter, self._histogram
        self._orders = counter("orders", "Orders at a CA that ended, by result.", "ca", "result")
        self._order_failures = counter(
            "order_failures",
            "Orders that failed, by the CA's problem type (RFC 8555 section 6.7), else by the addon's kind of error.",
            "ca",
            "error",
        )
        self._order_duration = histogram("order_duration_seconds", "How long orders at a CA took.", _ORDERS, "ca")
        self._lease_wait = histogram(
            "lease_wait_seconds", "How long this node waited for another that ordered the same certificate.", _WAITS
        )
        self._obtained = counter(
            "certificates_obtained", "Certificates that this node ordered: first ones and renewals.", "ca", "kind"
        )
        self._expiring = counter(
            "expiring_warnings", "Renewals that failed with less than a third of the certificate's life left."
        )
        self._removed = counter(
            "certificates_removed",
            "Certificates that a person deleted on this node, by the reason of their revocation at the CA, or none.",
            "revocation",
        )
        self._expired_removed = counter(
            "expired_certificates_removed", "Certificates that this node removed long after they had expired."
        )

    def _bind_handshakes(self) -> None:
        """Make the metrics that a handshake changes. A cached handshake changes two: they are plain numbers without the
        client library's lock, since only the event loop changes them."""
        self._handshakes: dict[Handshake, int] = dict.fromkeys(get_args(Handshake.__value__), 0)
        self._looked_for = {"hit": 0, "miss": 0}
        self._held = self._histogram(
            "handshake_hold_seconds", "How long handshakes were held whose certificate was not in memory.", _WAITS
        )
        challenges = self._counter(
            "challenges", "Challenges that validators asked for, of any type: answered, or unknown.", "result"
        )
        self._answered, self._unknown = challenges.labels("answered"), challenges.labels("unknown")

    def _bind_storage(self) -> None:
        duration = self._histogram(
            "storage_operation_duration_seconds", "How long calls of the storage took.", _CALLS, "operation"
        )
        errors = self._counter("storage_errors", "Calls of the storage that failed.", "operation")
        self._calls = {operation: duration.labels(operation) for operation in (*_OPERATIONS, _OTHER)}
        self._errors = {operation: errors.labels(operation) for operation in (*_OPERATIONS, _OTHER)}

    def _plain(self) -> Iterator[Metric]:
        """Yield the counters that do not use the client library."""
        handshakes = CounterMetricFamily(
            PREFIX + "handshakes",
            "TLS handshakes with a server name: served from memory (cached), with a certificate loaded or ordered "
            "meanwhile (obtained), without one (fallback, refused), or for a name that is not ours (not_ours).",
            labels=["result"],
        )
        cache = CounterMetricFamily(PREFIX + "cache_requests", "Look-ups of certificates in memory.", labels=["result"])
        for result, count in self._handshakes.items():
            handshakes.add_metric([result], count)
        for result_of_lookup, count in self._looked_for.items():
            cache.add_metric([result_of_lookup], count)
        yield from (handshakes, cache)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(PREFIX + name, text, labels, registry=self._registry, buckets=buckets)


@dataclass(frozen=True, slots=True)
class _Everything(Collector):
    """What was counted, and the gauges."""

    counted: CollectorRegistry
    plain: Iterator[Metric]
    state: NodeState

    def collect(self) -> Iterator[Metric]:
        yield from gauges.families(self.state)
        yield from self.plain
        for metric in self.counted.collect():
            # The time at which each counter was made: as many lines again, which are not used.
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


def _kind(error: IssuanceError) -> str:
    """Return the CA's problem type if it is a standard one (CAs may invent others), else the error's class."""
    if error.problem is not None and error.problem.type in MEANINGS:
        return error.problem.type
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()


def _revocation(reason: str | None) -> str:
    if reason is None:
        return "none"
    return reason if reason in REASONS else _OTHER
