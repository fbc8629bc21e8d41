"""Faults of the code, made on purpose: the simulator must find each of them.

Knows how to break one thing at a time; must not know which invariant notices.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import mitmproxy_acme.lifecycle.lease_holder as lease_holder
import mitmproxy_acme.lifecycle.renewer as renewer
from acme_storage import StorageError
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.lifecycle.cache import Cache
from mitmproxy_acme.lifecycle.cluster_sync import ClusterSync
from mitmproxy_acme.lifecycle.obtainer import Obtainer
from mitmproxy_acme.lifecycle.order_gate import OrderGate
from mitmproxy_acme.lifecycle.renewer import Renewer
from mitmproxy_acme.store.change_feed import ChangeFeed
from mitmproxy_acme.store.lease import Lease
from mitmproxy_acme.store.renewal_schedule import RenewalSchedule, ScheduledCheck
from mitmproxy_acme.store.store import Slot, Store

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
    def renew_at(certificate: Certificate, setting: Any, info: Any) -> float:
        return certificate.not_before + 0.1 * certificate.lifetime

    return mock.patch.object(renewer, "renew_at", renew_at)


def _rest_has_no_end() -> Any:
    return mock.patch.object(renewer, "_LONGEST_REST", 1e6)


def _entry_removed_before_it_is_moved() -> Any:
    def move(schedule: RenewalSchedule, entry: ScheduledCheck, at: float) -> None:
        schedule.remove(entry)
        raise StorageError("the process ends here")

    return mock.patch.object(RenewalSchedule, "move", move)


def _unlisted_are_not_checked() -> Any:
    return mock.patch.object(Renewer, "_unlisted", return_value=[])


def _changes_are_not_announced() -> Any:
    return mock.patch.object(ChangeFeed, "announce", return_value=None)


def _changes_are_not_read() -> Any:
    async def read(sync: ClusterSync, now: float) -> None:
        sync._read_at = now

    return mock.patch.object(ClusterSync, "_read", read)


def _deleted_stays_in_memory() -> Any:
    return mock.patch.object(Cache, "_forget", return_value=None)


def _gate_is_open() -> Any:
    return mock.patch.object(OrderGate, "require_in_memory", return_value=None)


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


MUTANTS: Mapping[str, Mutant] = {
    "a lease is extended after it has ended": _lease_extended_too_late,
    "a lease is no obstacle": _lease_not_exclusive,
    "a lease is freed by anyone": _lease_freed_by_anyone,
    "what is stored is not read under the lease": _stored_unread_under_the_lease,
    "the slower writer wins": _slower_writer_wins,
    "an expired certificate is served": _expired_is_served,
    "nothing is renewed": _nothing_is_renewed,
    "certificates are renewed too early": _renewed_too_early,
    "the renewer's rest has no end": _rest_has_no_end,
    "an entry is removed before it is moved": _entry_removed_before_it_is_moved,
    "what the schedule has lost is not checked": _unlisted_are_not_checked,
    "changes are not announced": _changes_are_not_announced,
    "changes are not read": _changes_are_not_read,
    "a deleted certificate stays in memory": _deleted_stays_in_memory,
    "no backoff keeps an order from being placed": _gate_is_open,
    "a certificate is served for other names": _certificate_for_another_name,
    "orders are not shared": _orders_are_not_shared,
}
