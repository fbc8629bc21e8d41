"""Faults of the code, made on purpose: the simulator must find each of them.

Knows how to break one thing at a time; must not know which invariant notices.
"""

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import mitmproxy_acme.core.renewal as renewal
import mitmproxy_acme.lifecycle.lease_holder as lease_holder
import mitmproxy_acme.lifecycle.ordering.control_client as control_client
import mitmproxy_acme.lifecycle.ordering.failover as failover
import mitmproxy_acme.lifecycle.renewal.renewer as renewer
from mitmproxy_acme.ca import delivery
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.backoff import Backoff
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.lifecycle.cache import Cache
from mitmproxy_acme.lifecycle.cautious_clock import CautiousClock
from mitmproxy_acme.lifecycle.cluster_sync import ClusterSync
from mitmproxy_acme.lifecycle.lost_records import LostRecords
from mitmproxy_acme.lifecycle.ordering.backoff_registry import BackoffRegistry
from mitmproxy_acme.lifecycle.ordering.clock_check import ClockCheck
from mitmproxy_acme.lifecycle.ordering.failover import Failover
from mitmproxy_acme.lifecycle.ordering.obtainer import Obtainer
from mitmproxy_acme.lifecycle.ordering.waits_of_other_clocks import WaitsOfOtherClocks
from mitmproxy_acme.lifecycle.renewal.due_checks import DueChecks
from mitmproxy_acme.lifecycle.renewal.renewer import Renewer
from mitmproxy_acme.lifecycle.renewal.unlisted_checks import UnlistedChecks
from mitmproxy_acme.store.change_feed import ChangeFeed
from mitmproxy_acme.store.lease import Lease
from mitmproxy_acme.store.nodes import Nodes
from mitmproxy_acme.store.store import Slot, Store

from .handmade import (
    AHEAD_AT_THE_START,
    AHEAD_BESIDE_ANOTHER,
    AHEAD_BY_MOST_OF_A_LIFE,
    AHEAD_FOR_A_WHILE,
    AHEAD_FOR_LONG,
    DATA_NODE_AHEAD,
    DELETED_AND_FAILING,
    FAILING,
    MISDELIVERED,
    PAUSED,
    PREFERRED_IS_DOWN,
    PUT_OFF,
    RENEWED_AND_LOST,
    TWO_ORDERS,
)
from .scenario import Scenario

type Mutant = Callable[[], Any]


def _lease_extended_too_late() -> Any:
    return mock.patch.object(lease_holder, "EXTEND_EVERY", 50.0)


def _lease_not_exclusive() -> Any:
    def acquire(cls: type[Lease], storage: Any, what: str, node: str) -> Lease:
        lease = cls(storage, f"leases/{what}", node.encode())
        storage.put(lease.key, lease.owner, ttl=10.0)
        return lease

    return mock.patch.object(Lease, "acquire", classmethod(acquire))


def _lease_freed_by_anyone() -> Any:
    return mock.patch.object(Lease, "release", lambda lease: lease.storage.delete(lease.key))


def _stored_unread_under_the_lease() -> Any:
    return mock.patch.object(Slot, "satisfying", return_value=None)


def _slower_writer_wins() -> Any:
    def replace(store: Store, slot: Slot, certificate: Certificate) -> bool:
        key = f"certificates/{certificate.id}"
        store.storage.put(key, certificate.to_record())
        return True

    return mock.patch.object(Store, "replace", replace)


def _expired_is_served() -> Any:
    def get(cache: Cache, key: ServerName) -> Certificate | None:
        return cache._held.get(key)

    return mock.patch.object(Cache, "get", get)


def _nothing_is_renewed() -> Any:
    return mock.patch.object(renewer, "renew_at", return_value=math.inf)


def _renewed_too_early() -> Any:
    def renew_at(certificate: Certificate, setting: Any, info: Any, now: float = math.inf) -> float:
        return certificate.not_before + 0.1 * certificate.lifetime

    return mock.patch.object(renewer, "renew_at", renew_at)


def _rest_has_no_end() -> Any:
    return mock.patch.object(renewer, "_LONGEST_REST", 1e6)


def _missing_is_tried_at_once() -> Any:
    async def check_missing(renewer: Renewer, entry: Any, subject: Any) -> None:
        renewer._missing[subject] = renewer._now()
        renewer._woken.set()

    return mock.patch.object(Renewer, "_check_missing", check_missing)


def _unlisted_are_not_checked() -> Any:
    return mock.patch.object(UnlistedChecks, "find", return_value=[])


def _changes_are_not_announced() -> Any:
    return mock.patch.object(ChangeFeed, "announce", return_value=None)


def _changes_are_not_read() -> Any:
    async def read(sync: ClusterSync, now: float) -> None:
        sync._read_at = now

    return mock.patch.object(ClusterSync, "_read", read)


def _deleted_stays_in_memory() -> Any:
    return mock.patch.object(Cache, "forget", return_value=None)


def _failures_are_not_counted() -> Any:
    async def record(backoffs: BackoffRegistry, subject: Any, error: Exception, attempt: Any) -> Backoff:
        return Backoff(1, backoffs._now(), str(error))

    return mock.patch.object(BackoffRegistry, "record", record)


def _managed_wait_by_the_wrong_clock() -> Any:
    return mock.patch.object(renewer, "_SET_BACK", math.inf)


def _obtained_in_the_future() -> Any:
    return mock.patch.object(renewal, "_CLOCKS_DIFFER", math.inf)


def _failed_deletion_is_forgotten() -> Any:
    return mock.patch.object(ChangeFeed, "doubt", return_value=None)


def _waits_of_other_clocks_are_believed() -> Any:
    return mock.patch.object(WaitsOfOtherClocks, "correct", lambda clocks, scope, backoff: backoff)


def _certificate_for_another_name() -> Any:
    def put(cache: Cache, subject: Any, certificate: Certificate) -> Certificate:
        for key in list(dict(cache._held.items())) or subject.lookup_keys:
            cache._held.put(key, certificate)
        return certificate

    return mock.patch.object(Cache, "put", put)


def _orders_are_not_shared() -> Any:
    async def obtain(obtainer: Obtainer, request: Any) -> Certificate:
        return await obtainer.failover.issue(request.subject, request.replacing)

    return mock.patch.object(Obtainer, "obtain", obtain)


def _own_clock_counts_at_once() -> Any:
    return mock.patch.object(CautiousClock, "look", return_value=True)


def _clocks_of_others_do_not_count() -> Any:
    return mock.patch.object(Nodes, "clocks", return_value={})


def _data_nodes_order() -> Any:
    return mock.patch.object(Config, "orders", True)


def _data_nodes_check() -> Any:
    patches = contextlib.ExitStack()
    patches.enter_context(mock.patch.object(Renewer, "_has_room", True))
    patches.enter_context(mock.patch.object(DueChecks, "claim", return_value=mock.Mock()))
    return patches


def _data_nodes_store() -> Any:
    async def restore(lost: LostRecords) -> None:
        if lost._changes.take_loss() or lost._suspected:
            await lost._store_again(await lost._threads.storage(lost._missing, lost._cache.held()))
        elif not lost._changes.is_marked:
            await lost._threads.storage(lost._changes.leave_mark)
        lost._suspected = False

    return mock.patch.object(LostRecords, "restore", restore)


def _unusable_answers_are_none() -> Any:
    return mock.patch.object(control_client, "_ANSWERS", math.inf)


def _lost_is_not_stored_again() -> Any:
    return mock.patch.object(LostRecords, "restore", mock.AsyncMock(return_value=None))


def _lost_is_ordered_by_who_holds_it() -> Any:
    return mock.patch.object(LostRecords, "find", mock.AsyncMock(return_value=None))


def _last_ca_is_preferred() -> Any:
    def available(failover: Failover, subject: Any, cas: Any) -> Any:
        free = (ca for ca in reversed(cas) if failover.backoffs.is_available(subject, ca.directory))
        return next(free, None)

    return mock.patch.object(Failover, "_available", available)


def _next_ca_is_not_asked() -> Any:
    return mock.patch.multiple(Failover, _following=lambda *of: None, _available=lambda failover, *of: failover.cas[0])


def _failed_name_is_not_rehearsed() -> Any:
    return mock.patch.object(failover, "rehearse", mock.AsyncMock(return_value=None))


def _renewed_too_late() -> Any:
    def renew_at(certificate: Certificate, setting: Any, info: Any, now: float = math.inf) -> float:
        return renewal.renew_at(certificate, setting, info, now) + 0.01 * certificate.lifetime

    return mock.patch.object(renewer, "renew_at", renew_at)


def _deliveries_are_not_checked() -> Any:
    return mock.patch.object(delivery, "check")


def _clocks_are_not_compared() -> Any:
    return mock.patch.object(ClockCheck, "require", mock.AsyncMock(return_value=None))


MUTANTS: Mapping[str, tuple[Mutant, Scenario]] = {
    "a lease is extended after it has ended": (_lease_extended_too_late, Scenario.of(25)),
    "a lease is no obstacle": (_lease_not_exclusive, Scenario.of(0)),
    "a lease is freed by anyone": (_lease_freed_by_anyone, Scenario.of(0)),
    "what is stored is not read under the lease": (_stored_unread_under_the_lease, Scenario.of(0)),
    "the slower writer wins": (_slower_writer_wins, TWO_ORDERS),
    "a paused writer wins": (_slower_writer_wins, PAUSED),
    "an expired certificate is served": (_expired_is_served, FAILING),
    "nothing is renewed": (_nothing_is_renewed, Scenario.of(0)),
    "certificates are renewed too early": (_renewed_too_early, Scenario.of(0)),
    "the renewer's rest has no end": (_rest_has_no_end, Scenario.of(140)),
    "a missing certificate is tried in each round": (_missing_is_tried_at_once, DELETED_AND_FAILING),
    "what the schedule has lost is not checked": (_unlisted_are_not_checked, PUT_OFF),
    "changes are not announced": (_changes_are_not_announced, Scenario.of(10)),
    "changes are not read": (_changes_are_not_read, Scenario.of(6)),
    "a deleted certificate stays in memory": (_deleted_stays_in_memory, Scenario.of(165)),
    "failures are not counted": (_failures_are_not_counted, Scenario.of(2)),
    "a wait of a clock that is ahead is taken as it is": (_waits_of_other_clocks_are_believed, AHEAD_BESIDE_ANOTHER),
    "what a CA delivers is not checked": (_deliveries_are_not_checked, MISDELIVERED),
    "any clock is good enough to order": (_clocks_are_not_compared, AHEAD_BY_MOST_OF_A_LIFE),
    "a managed name waits by a clock that was ahead": (_managed_wait_by_the_wrong_clock, AHEAD_AT_THE_START),
    "a certificate was obtained in the future": (_obtained_in_the_future, Scenario.of(14)),
    "a deletion that may have failed is forgotten": (_failed_deletion_is_forgotten, Scenario.of(31529)),
    "a certificate is served for other names": (_certificate_for_another_name, Scenario.of(0)),
    "a clock counts as soon as it is set": (_own_clock_counts_at_once, AHEAD_FOR_A_WHILE),
    "the clocks of other nodes do not count": (_clocks_of_others_do_not_count, AHEAD_FOR_LONG),
    "a data node orders": (_data_nodes_order, Scenario.of(1)),
    "a data node checks what is due": (_data_nodes_check, Scenario.of(1)),
    "a data node stores what is lost": (_data_nodes_store, Scenario.of(182)),
    "a data node asks on and on": (_unusable_answers_are_none, DATA_NODE_AHEAD),
    "what is lost is not stored again": (_lost_is_not_stored_again, Scenario.of(6)),
    "what is lost is ordered by who holds it": (_lost_is_ordered_by_who_holds_it, RENEWED_AND_LOST),
    "the last CA is asked first": (_last_ca_is_preferred, Scenario.of(1)),
    "the next CA is not asked": (_next_ca_is_not_asked, PREFERRED_IS_DOWN),
    "a name that has failed is not rehearsed": (_failed_name_is_not_rehearsed, Scenario.of(17)),
    "a certificate is renewed late": (_renewed_too_late, Scenario.of(10)),
    "orders are not shared": (_orders_are_not_shared, Scenario.of(0)),
}
"""Each fault, and the run that finds it."""
