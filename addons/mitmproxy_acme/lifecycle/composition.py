"""Composition: the parts of one node, made and connected in one place.

This module knows which part uses which; it must not know what any of them does.
"""

import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from acme_storage import Storage

from .. import __version__
from ..ca.issuer import Issuer
from ..ca.issuers import issuers_of
from ..config.config import Config
from ..core.events import Events
from ..core.instrumentation import Instrumentation
from ..core.thread_pools import ThreadPools
from ..store.certificate_writer import CertificateWriter
from ..store.change_feed import ChangeFeed
from ..store.encryption import RecordCipher
from ..store.event_log import EventLog
from ..store.expired_certificates import ExpiredCertificates
from ..store.issuance_requests import IssuanceRequests
from ..store.nodes import Node, Nodes
from ..store.rate_limiter import RateLimiter
from ..store.renewal_schedule import RenewalSchedule
from ..store.store import Store
from ..store.usage_marks import UsageMarks
from .cache import Cache
from .cautious_clock import CautiousClock
from .certificate_lookup import CertificateLookup
from .certificate_policy import CertificatePolicy
from .certificate_provider import CertificateProvider
from .certificate_remover import CertificateRemover
from .client_usage import ClientUsage
from .configured_ca import ConfiguredCa
from .event_recorder import EventRecorder
from .lost_records import LostRecords
from .negative_cache import NegativeCache
from .ordering.admission import Admission
from .ordering.ask import AskClient
from .ordering.backoff_registry import BackoffRegistry
from .ordering.certificate_saver import CertificateSaver
from .ordering.clock_check import ClockCheck
from .ordering.control_client import ControlClient
from .ordering.exhausted_limits import ExhaustedLimits
from .ordering.failover import Failover
from .ordering.issuance_lock import IssuanceLock
from .ordering.obtainer import Obtainer
from .ordering.order_gate import OrderGate
from .ordering.unusable_answers import UnusableAnswers
from .ordering.waits_of_other_clocks import WaitsOfOtherClocks
from .predecessor import Predecessor
from .revoker import Revoker
from .storage_health import StorageHealth

# Unfinished revocations whose waits a node remembers.
_REVOCATIONS = 1_000


@dataclass(frozen=True, slots=True)
class Base:
    """What most parts use: the options, the typed storage, the threads, the events and the clock."""

    config: Config
    node: Node
    store: Store
    schedule: RenewalSchedule
    expired: ExpiredCertificates
    marks: UsageMarks
    changes: ChangeFeed
    requests: IssuanceRequests
    nodes: Nodes
    threads: ThreadPools
    events: Events
    event_log: EventLog
    recorder: EventRecorder
    measures: Instrumentation
    health: StorageHealth
    now: Callable[[], float]
    clock: CautiousClock
    predecessor: Predecessor | None = None


@dataclass(frozen=True, slots=True)
class Parts:
    """What works on the base: from the cache of certificates to the orders."""

    cas: tuple[ConfiguredCa, ...]
    policy: CertificatePolicy
    backoffs: BackoffRegistry
    cache: Cache
    lookup: CertificateLookup
    lost: LostRecords
    obtainer: Obtainer
    provider: CertificateProvider
    remover: CertificateRemover
    usage: ClientUsage
    revoker: Revoker


def make_base(
    config: Config,
    storage: Storage,
    measures: Instrumentation | None,
    now: Callable[[], float],
    monotonic: Callable[[], float],
    threads: ThreadPools,
    predecessor: Predecessor | None = None,
) -> Base:
    """Make the base of one node. Reads and writes nothing."""
    cipher = RecordCipher.of(config)
    node = Node(secrets.token_hex(4), config.role, __version__, socket.gethostname(), now())
    health = StorageHealth(storage, threads, node.id)
    events, event_log, nodes = Events(), EventLog(storage, cipher), Nodes(storage)
    recorder = EventRecorder(event_log, node, threads, health, now)
    events.subscribe(recorder.on_event)
    return Base(
        config=config,
        node=node,
        store=Store(storage, cipher),
        schedule=RenewalSchedule(storage),
        expired=ExpiredCertificates(storage),
        marks=UsageMarks(storage),
        changes=ChangeFeed(storage, node.id),
        requests=IssuanceRequests(storage, cipher),
        nodes=nodes,
        threads=threads,
        events=events,
        event_log=event_log,
        recorder=recorder,
        measures=measures or Instrumentation(),
        health=health,
        now=now,
        clock=CautiousClock(nodes, node.id, threads, now, monotonic),
        predecessor=predecessor,
    )


def make_parts(base: Base, issuers: Sequence[Issuer] | None, draw: Callable[[], float]) -> Parts:
    """Make and connect the parts. Raises ``ConfigError`` for a CA or an account key that cannot be used."""
    config, store, threads, now = base.config, base.store, base.threads, base.now
    cas = tuple(
        ConfiguredCa(issuer, RateLimiter(store.storage, issuer.directory, issuer.limits, now))
        for issuer in issuers or issuers_of(config, store, threads)
    )
    policy = CertificatePolicy(config, cas)
    backoffs = BackoffRegistry(config, tuple(ca.directory for ca in cas), store, threads, now, draw)
    admission = Admission(config.orders_per_client, now)
    refusals = NegativeCache(now)
    cache = Cache(config, store, threads, base.measures, refusals, now)
    usage = ClientUsage(config, base.marks, base.schedule, base.changes, threads, base.events, now)
    lookup = CertificateLookup(config, store, base.schedule, base.marks, threads, policy, base.events, admission, now)
    lost = _make_lost_records(base, policy, cache)
    obtainer = _make_obtainer(base, cas, backoffs, admission, cache, lost)
    provider = CertificateProvider(
        config, store, threads, lookup, policy, obtainer, cache, backoffs, refusals, base.health, usage
    )
    remover = CertificateRemover(store, base.marks, base.changes, threads, cache, base.events, base.node.id, now)
    waits = WaitsOfOtherClocks(_REVOCATIONS, now)
    revoker = Revoker(
        config, cas, store, threads, backoffs, obtainer, remover, base.node.id, now, base.clock, draw, waits
    )
    return Parts(cas, policy, backoffs, cache, lookup, lost, obtainer, provider, remover, usage, revoker)


def _make_lost_records(base: Base, policy: CertificatePolicy, cache: Cache) -> LostRecords:
    return LostRecords(
        config=base.config,
        store=base.store,
        schedule=base.schedule,
        changes=base.changes,
        cache=cache,
        policy=policy,
        threads=base.threads,
        events=base.events,
        node=base.node.id,
        now=base.now,
    )


def _make_obtainer(
    base: Base,
    cas: tuple[ConfiguredCa, ...],
    backoffs: BackoffRegistry,
    admission: Admission,
    cache: Cache,
    lost: LostRecords,
) -> Obtainer:
    config, store, threads, now, node = base.config, base.store, base.threads, base.now, base.node.id
    limits = ExhaustedLimits(now)
    ask = AskClient(config.ask, threads, now) if config.ask else None
    gate = OrderGate(cas, backoffs, limits, admission, ask, now)
    control = None if config.orders else _make_control_client(base, gate)
    failover = Failover(
        cas, threads, backoffs, limits, ClockCheck(now), base.events, base.measures, node, now, cache.chained
    )
    writer = CertificateWriter(store, base.schedule, base.changes)
    return Obtainer(
        store=store,
        threads=threads,
        backoffs=backoffs,
        gate=gate,
        lock=IssuanceLock(store, threads, gate, control, node, base.measures, now),
        failover=failover,
        saver=CertificateSaver(writer, threads, base.events, config.renew_before, now),
        cache=cache,
        lost=lost,
        now=now,
        predecessor=base.predecessor,
    )


def _make_control_client(base: Base, gate: OrderGate) -> ControlClient:
    unusable = UnusableAnswers(base.node.id, base.now)
    return ControlClient(base.requests, base.nodes, base.store, base.threads, gate, unusable, base.now)
