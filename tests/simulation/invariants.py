"""What must hold at each step, whatever goes wrong. docs/explanation/simulation.md lists the same.

Knows certificates, the keys of the storage, and which faults excuse what; must not know nodes or how faults are made.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from acme_storage import Storage
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.errors import CertificateError, RecordRefused
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.store.keys import CERTIFICATES_PREFIX
from mitmproxy_acme.store.lease import LEASE_TTL

from .ca_rules import CaRules
from .clock_rules import WrongClocks
from .loss_rules import Losses

# Seconds after which every node serves what was stored, and nothing that was deleted or replaced. Ten are promised; a
# node reads the changes every three, and a handshake may have begun before.
_KNOWN_EVERYWHERE = 30.0
# Seconds. The first wait after a failure is a minute, or a quarter of what a served certificate has left.
_LEAST_WAIT = 30.0
# A name that is ordered at the last moment of a lease may be ordered again so much later (a slow call to the storage).
_SLACK = 3.0
# Seconds after which a node that waits for another's order has seen what came of it.
_SEEN_WITHIN = 3.0
# Seconds. The longest wait of a whole CA, and how late a certificate may be renewed that is due.
_LONGEST_WAIT = 700.0
_RENEWED_WITHIN = 240.0


class Violation(Exception):
    """An invariant does not hold; the message says which, and what was seen."""


@dataclass(eq=False)
class Order:
    node: int
    id: str
    begun: float


class Invariants:
    """Raises ``Violation`` at once: the run ends with the moment that shows it."""

    def __init__(self, true_time: Callable[[], float], lifetime: float) -> None:
        self._true_time = true_time
        self._orders: list[Order] = []
        self._leases: dict[str, tuple[bytes, int]] = {}
        self._changed_at: dict[str, float] = {}
        self._failed_at: dict[tuple[object, ...], float] = {}  # a name; at one CA; by one node
        self._failures: Counter[str] = Counter()  # in a row, of names that could not be validated
        self.stored: dict[str, Certificate] = {}
        self.may_be_deleted: set[str] = set()
        self.may_be_ordered: set[str] = set()  # although what is stored is fresh: a person, or the CA, wants another
        self.storage_trouble_at = self.trouble_at = -1e9  # when a fault of the storage, or any, was last active
        self.limits_excused = False
        self.lifetime_may_shrink = False  # that of the certificates which the CA issues
        self.may_expire: set[str] = set()  # names whose backoffs may be longer than the rest of the run
        # Whether each window was told when it was asked for: after a failure, or by a wrong clock, it is hours later.
        self.windows_are_known = True
        self.crashes = self.clock_is_wrong = False  # whether a node does, or has a wrong clock, now
        self.clock_trouble_at = -1e9  # when a clock was last wrong
        self.outage_at = -1e9  # when last no CA worked
        self.cas, self.losses = CaRules(self.require, true_time), Losses()
        self.wrong_clocks = WrongClocks(self.require, true_time)
        self._untold: set[str] = set()  # names whose failure a node may not have stored
        self._lifetime = lifetime
        self._enough = min(0.2 * lifetime, 360.0) + 60.0
        self._fresh = 0.3 * lifetime
        self.found: Violation | None = None
        self.orders = self.certificates = 0  # seen so far

    def require(self, holds: bool, what: str) -> None:
        if not holds:
            self.found = self.found or Violation(what)
            raise self.found

    # Orders

    def asked(self, node: int) -> None:
        self.cas.asked(node)

    def rehearsed(self, node: int, id: str) -> None:
        self.cas.rehearsed(node, id)

    def order_began(self, node: int, id: str, ca: int = 0) -> Order:
        """At most one order for a name at a time. A lease that cannot be extended ends, and another node may order."""
        order, now = Order(node, id, self._true_time()), self._true_time()
        for other in self._orders:
            if other.id == id:
                excused = self.storage_trouble_at >= other.begun - LEASE_TTL - _SLACK
                self.require(
                    excused,
                    f"one order at a time: node {node} orders {id}, which node {other.node} has ordered since "
                    f"{now - other.begun:.3f} s",
                )
        stored = self.stored.get(id)
        is_fresh = stored is not None and now - stored.not_before < self._fresh and stored.not_after > now
        self.require(
            not is_fresh or id in self.may_be_ordered or now - self.trouble_at < self._enough,
            f"no needless order: node {node} orders {id} again, whose stored certificate is fresh",
        )
        since = now - max(self._failed_at.get(where, -1e9) for where in ((id,), (id, ca), (id, ca, node)))
        self.require(
            since > _LEAST_WAIT
            or id in self.may_be_ordered
            or self.clock_is_wrong
            or self.storage_trouble_at > now - since - LEASE_TTL,
            f"failures are waited for: node {node} orders {id} {since:.0f} s after it failed",
        )
        self._require_no_loss(node, id)
        self.cas.ordered(
            node,
            id,
            ca,
            fallback_excused=self.limits_excused or now - self.clock_trouble_at < _LONGEST_WAIT,
            rehearsal_excused=id in self._untold or id in self.may_be_ordered or self.storage_trouble_at > now - since,
        )
        self._orders.append(order)
        self.orders += 1
        return order

    def _require_no_loss(self, node: int, id: str) -> None:
        """What the storage has lost is stored again by a node that holds it, and not ordered."""
        why = self.losses.needless(node, id, self._true_time(), self._fresh, self.storage_trouble_at)
        self.require(
            not why or id in self.may_be_ordered or self.clock_is_wrong,
            f"what is lost is not ordered: node {node} orders {id}, {why}",
        )

    def values_lost(self, storage: Storage) -> None:
        """The storage has come back with these values, which may be none."""
        kept = {}
        for key in storage.keys(CERTIFICATES_PREFIX):
            id, record = key.removeprefix(CERTIFICATES_PREFIX), storage.get(key)
            if record is not None:
                kept[id] = Certificate.from_record(ServerName(id), record)
        for id in self.losses.note(self.stored, kept, self._true_time()):
            self._changed_at[id] = self._true_time()
        self.stored = kept
        self._leases.clear()

    def order_ended(self, order: object) -> None:
        self._orders = [other for other in self._orders if other is not order]

    def issued(self, certificate: Certificate, process: object, ahead: float) -> None:
        self.certificates += 1
        self._failures.pop(certificate.id, None)
        self.cas.issued(certificate.id)
        if certificate.id not in self.may_be_ordered:
            self.wrong_clocks.issued(process, certificate, ahead)

    def rehearsal_failed(self, id: str) -> None:
        """A name without a certificate waits ten minutes after its second failure, which may be longer than the run."""
        self._failures[id] += 1
        stored = self.stored.get(id)
        if self._failures[id] > 1 and (stored is None or stored.not_after <= self._true_time()):
            self.may_expire.add(id)

    def order_failed(self, id: str, *where: int) -> None:
        """At one CA, or by one node there; everywhere without these."""
        self.rehearsal_failed(id)
        self._failed_at[id, *where] = self._true_time()

    def validation_failed(self, id: str) -> None:
        self.order_failed(id)
        self.cas.validation_failed(id)
        if self.crashes:
            self._untold.add(id)

    def limit_exceeded(self, kind: str, mark: str) -> None:
        """The CA never has to refuse for a limit that we count too."""
        self.require(self.limits_excused, f"limits by our own count: the CA refused, its limit of {kind} for {mark!r}")

    # Storage

    def storage_call(self, node: int, call: str, arguments: tuple[Any, ...], result: object) -> None:
        key = arguments[0]
        self.cas.storage_call(node, call, key)
        if call in ("get", "keys"):
            return
        if key.startswith("leases/"):
            self._lease_call(node, call, arguments, result)
        elif key.startswith(CERTIFICATES_PREFIX) and result is not False:
            self._certificate_call(call, arguments)

    def _lease_call(self, node: int, call: str, arguments: tuple[Any, ...], result: object) -> None:
        """A lease is taken, extended and freed by ``swap`` alone, and by its owner."""
        self.require(call == "swap", f"leases: node {node} uses {call} on {arguments[0]}")
        key, old, new = arguments
        if not result:
            return
        if old is not None:
            owner = self._leases.get(key, (old, node))
            self.require(owner == (old, node), f"leases: node {node} changes {key}, which is of node {owner[1]}")
        if new is None:
            self._leases.pop(key, None)
        else:
            self._leases[key] = (new, node)

    def _certificate_call(self, call: str, arguments: tuple[Any, ...]) -> None:
        key = arguments[0]
        id = key.removeprefix(CERTIFICATES_PREFIX)
        new: bytes | None = None if call == "delete" else arguments[2 if call == "swap" else 1]
        before, now = self.stored.get(id), self._true_time()
        if new is None:
            lost = before is not None and before.not_after > now and id not in self.may_be_deleted
            self.require(not lost, f"nothing is lost: the valid certificate of {id} was deleted")
            self.stored.pop(id, None)
            self.losses.deleted(id, now)
            self._changed_at[id] = now
            return
        try:
            certificate = Certificate.from_record(ServerName(id), new)
        except (CertificateError, RecordRefused) as error:
            self.require(False, f"no key that does not fit: {id}: {error}")
            return
        if before is not None and before.not_after > now and not self.lifetime_may_shrink:
            self.require(
                certificate.not_after >= before.not_after,
                f"nothing is lost: the certificate of {id} was replaced by one that ends "
                f"{before.not_after - certificate.not_after:.0f} s earlier",
            )
        self.stored[id] = certificate
        self.losses.stored(id)
        self._changed_at[id] = now
        self.may_be_deleted.discard(id)
        self.may_be_ordered.discard(id)

    # Handshakes

    def served(self, node: int, name: str, certificate: Certificate, *, clock_is_right: bool) -> None:
        """Never another's certificate, and never an expired one."""
        self.require(certificate.covers(name), f"nothing foreign: node {node} served {certificate.id} for {name}")
        late = self._true_time() - certificate.not_after
        self.require(
            late < 1.0 or not clock_is_right,
            f"nothing expired: node {node} served a certificate for {name} that ended {late:.0f} s ago",
        )
        stored, calm = self.stored.get(name), self._true_time() - self.trouble_at > _KNOWN_EVERYWHERE
        is_current = stored is not None and stored.fingerprint == certificate.fingerprint
        is_current = is_current or self.losses.has(name, certificate)
        since = self._true_time() - self._changed_at.get(name, 0.0)
        self.require(
            is_current or since < _KNOWN_EVERYWHERE or not calm,
            f"changes are known everywhere: node {node} serves a certificate for {name} that was replaced or deleted "
            f"{since:.0f} s ago",
        )

    def not_served(self, node: int, name: str, reason: str) -> None:
        """What is stored and valid is served, once nothing has been wrong for some time."""
        stored = self.stored.get(name)
        valid = stored is not None and stored.not_after > self._true_time() + 1.0
        calm = self._true_time() - self.trouble_at > 30.0
        is_new = self._true_time() - self._changed_at.get(name, -1e9) < _SEEN_WITHIN
        self.require(
            not (valid and calm) or is_new,
            f"what is stored is served: node {node} did not serve {name}, though it is stored: {reason}",
        )

    # Renewal

    def require_renewed(self, managed: list[str]) -> None:
        """Each managed name has a valid certificate, if nothing was wrong for long enough to renew it."""
        now = self._true_time()
        if now - self.trouble_at < self._enough:
            return
        for name in (name for name in managed if name not in self.may_expire):
            stored = self.stored.get(name)
            self.require(
                stored is not None and stored.not_after > now,
                f"renewed in time: {name} has no valid certificate, though all was well for "
                f"{now - self.trouble_at:.0f} s",
            )

    def due_after(self, ari: bool) -> float:
        """Return after how many seconds a certificate of a profile is due: in its window, or when little is left."""
        if ari:
            return 0.62 * self._lifetime
        return self._lifetime / 2 if self._lifetime < 10 * 86_400.0 else self._lifetime * 2 / 3

    def require_due_renewed(self, managed: list[str], ari: bool) -> None:
        """A certificate of a profile is renewed soon after it is due, if all is well.

        Names that are due while no CA works are spread over a hundredth of what their certificates have left.
        """
        now = self._true_time()
        if ari and not self.windows_are_known:
            return
        for name in (name for name in managed if name not in self.may_expire and name in self.stored):
            due = self.stored[name].not_before + self.due_after(ari)
            left = self.stored[name].not_after - self.outage_at
            spread = 0.01 * left if due <= self.outage_at else 0.0
            late = now - max(due, self.trouble_at + _LONGEST_WAIT) - spread
            self.require(late < _RENEWED_WITHIN, f"renewed when due: {name} has been due for {now - due:.0f} s")
