"""A fleet on paper that runs: a million names, minute by minute, by the code's own arithmetic.

When a name is due, what is waited after a failure, and how limits are counted is computed by the functions that the
nodes use; threads, network and storage are left out. Each modelled name stands for ``Fleet.stands_for`` names, so that
limits and capacities are divided by that. Knows one fleet; must not know which ones are shown (``scripts/fleet.py``).
"""

from array import array
from collections import defaultdict
from dataclasses import dataclass, field
from random import Random
from typing import cast

from mitmproxy_acme.core.backoff import Backoff, BackoffSchedule
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.rate_limits import Limit
from mitmproxy_acme.core.renewal import ASK_AGAIN_DEFAULT, RenewalInfo, RenewBefore, renew_at, spread_after
from mitmproxy_acme.lifecycle.ordering import order_queue
from mitmproxy_acme.lifecycle.renewal import renewer

HOUR, DAY, MINUTE = 3_600.0, 86_400.0, 60.0
_AUTO = RenewBefore.parse("auto")
_WAITS = BackoffSchedule.parse("1m,10m,100m,1d").for_ca()
_WINDOW = 0.01  # a CA's window is that part of the lifetime around the moment when a renewal is due
# Let's Encrypt, https://letsencrypt.org/docs/rate-limits/: requests to new-order a second, of one address.
NEW_ORDERS_A_SECOND = 300.0


@dataclass(frozen=True, slots=True)
class Paper:
    """What the arithmetic reads of a certificate."""

    not_after: float
    begun: float
    fingerprint: bytes

    @property
    def lifetime(self) -> float:
        return self.not_after - self.begun


@dataclass(frozen=True, slots=True)
class Fleet:
    """Times in seconds from the start, when the fleet has been in step with its renewals for long.

    ``orders`` is the CA's limit of new orders for the account; an order takes ``order_seconds``. From ``outage`` to its
    end the CA is down, at ``revoked_at`` it moves the windows of a part of all certificates to then.
    """

    names: int
    lifetime: float
    ari: bool
    nodes: int
    seconds: float
    orders: Limit | None
    outage: tuple[float, float] | None = None
    revoked_at: float | None = None
    revoked_part: float = 0.1
    order_seconds: float = 5.0
    stands_for: int = 10

    @property
    def orders_a_second(self) -> float:
        """What the nodes can order, and the CA lets them ask for: each node has a few orders under way."""
        node = min(renewer._AT_ONCE / self.order_seconds, order_queue._AT_ONCE / order_queue._COUNTED_FOR)
        return min(self.nodes * node, NEW_ORDERS_A_SECOND)

    @property
    def needed_a_second(self) -> float:
        """The mean of orders that keep all names valid."""
        return self.names / (self.lifetime - _AUTO.margin(self.lifetime))


@dataclass
class Told:
    """What happened: ``by_hour`` counts orders, ``expired`` names that ended before they were renewed."""

    fleet: Fleet
    by_hour: list[int] = field(default_factory=list)
    attempts_by_hour: list[int] = field(default_factory=list)
    expired: int = 0
    refused: int = 0
    longest_without: float = 0.0
    replaced_after: list[float] = field(default_factory=list)
    most_waiting: int = 0

    @property
    def peak(self) -> int:
        return max(self.by_hour)

    @property
    def p99(self) -> int:
        return sorted(self.by_hour)[int(len(self.by_hour) * 0.99)]

    @property
    def mean(self) -> float:
        return sum(self.by_hour) / len(self.by_hour)


def live(fleet: Fleet) -> Told:
    """Let the time pass. The same fleet is the same run."""
    return _Run(fleet).told()


class _Run:
    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._random = Random(str(fleet))
        self._number = fleet.names // fleet.stands_for
        self._begun = array("d", [0.0]) * self._number
        self._revoked = bytearray(self._number)
        self._due: dict[int, list[int]] = defaultdict(list)
        self._tokens_at = 0.0
        self._limit = self._scaled(fleet.orders)
        self._down: Backoff | None = None
        self._result = Told(fleet, [0] * int(fleet.seconds // HOUR), [0] * int(fleet.seconds // HOUR))
        cycle = fleet.lifetime - _AUTO.margin(fleet.lifetime)
        for name in range(self._number):
            self._begun[name] = -cycle * self._random.random()
            self._list(name, self._due_at(name))

    def _scaled(self, limit: Limit | None) -> Limit | None:
        return Limit(max(limit.capacity // self._fleet.stands_for, 1), limit.period) if limit else None

    def _certificate(self, name: int) -> Certificate:
        begun = self._begun[name]
        paper = Paper(begun + self._fleet.lifetime, begun, f"{name} {begun:.0f}".encode())
        return cast(Certificate, paper)

    def _due_at(self, name: int) -> float:
        """Return when it is due by the CA's window or by its age."""
        certificate, lifetime = self._certificate(name), self._fleet.lifetime
        if not self._fleet.ari:
            return renew_at(certificate, _AUTO, None)
        ideal = certificate.not_after - _AUTO.margin(lifetime)
        return renew_at(certificate, _AUTO, RenewalInfo(ideal - _WINDOW * lifetime, ideal + _WINDOW * lifetime, 0.0))

    def _list(self, name: int, at: float) -> None:
        self._due[max(int(at // MINUTE), 0)].append(name)

    def told(self) -> Told:
        waiting = list[int]()
        for minute in range(int(self._fleet.seconds // MINUTE)):
            now = minute * MINUTE
            if self._fleet.revoked_at is not None and self._fleet.revoked_at <= now < self._fleet.revoked_at + MINUTE:
                self._revoke(now)
            waiting += self._due.pop(minute, ())
            waiting = self._work(waiting, now)
            self._result.most_waiting = max(self._result.most_waiting, len(waiting) * self._fleet.stands_for)
        self._count_ended()
        return self._result

    def _revoke(self, now: float) -> None:
        """Each certificate's new window is seen when it is asked for next, at any moment of the next six hours."""
        for name in self._random.sample(range(self._number), int(self._number * self._fleet.revoked_part)):
            self._revoked[name] = 1
            if self._fleet.ari:
                self._list(name, now + self._random.random() * ASK_AGAIN_DEFAULT)

    def _work(self, waiting: list[int], now: float) -> list[int]:
        """Order what the nodes can in a minute, the first to become due first; return what waits on."""
        most = self._fleet.orders_a_second * MINUTE / self._fleet.stands_for
        room = int(most) + (self._random.random() < most % 1)
        if self._is_down(now):
            for name in waiting:
                self._put_off(name, now, self._backoff(now).until)
            return []
        self._down, index = None, 0
        while index < len(waiting) and room:
            name, index = waiting[index], index + 1
            if self._due_at(name) >= now + MINUTE and not self._revoked[name]:
                continue  # renewed meanwhile
            if not self._take(now):
                self._result.refused += self._fleet.stands_for
                self._put_off(name, now, self._limit.next_at(self._tokens_at, now) if self._limit else now)
                continue
            self._order(name, now)
            room -= 1
        return waiting[index:]

    def _is_down(self, now: float) -> bool:
        outage = self._fleet.outage
        return outage is not None and outage[0] <= now < outage[1]

    def _backoff(self, now: float) -> Backoff:
        """Return that of the CA, counted on when it has ended."""
        if self._down is None or self._down.until <= now:
            self._down = _WAITS.next_backoff(self._down, "down", now=now, draw=self._random.random())
        return self._down

    def _put_off(self, name: int, now: float, until: float) -> None:
        self._result.attempts_by_hour[int(now // HOUR)] += self._fleet.stands_for
        self._list(name, max(spread_after(self._certificate(name), until), now + MINUTE))

    def _take(self, now: float) -> bool:
        """Count an order in the account's limit; those that replace a certificate, as ARI lets them, are exempt."""
        if self._limit is None or self._fleet.ari:
            return True
        if self._limit.remaining(self._tokens_at, now) < 1:
            return False
        self._tokens_at = self._limit.spend(self._tokens_at, now)
        return True

    def _order(self, name: int, now: float) -> None:
        self._note_end(name, now)
        if self._revoked[name] and self._fleet.revoked_at is not None:
            self._result.replaced_after.append(now - self._fleet.revoked_at)
        self._begun[name], self._revoked[name] = now, 0
        self._result.by_hour[int(now // HOUR)] += self._fleet.stands_for
        self._list(name, self._due_at(name))

    def _note_end(self, name: int, now: float) -> None:
        late = now - self._begun[name] - self._fleet.lifetime
        if late > 0:
            self._result.expired += self._fleet.stands_for
            self._result.longest_without = max(self._result.longest_without, late)

    def _count_ended(self) -> None:
        for name in range(self._number):
            self._note_end(name, self._fleet.seconds)
