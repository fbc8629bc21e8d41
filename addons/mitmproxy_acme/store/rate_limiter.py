"""Rate limiter: what is left of a CA's rate limits, as counted by the whole cluster.

    budgets/CA/KIND/SCOPE  one token bucket: when it is full again, and what it counts; expires when it is full

This module knows the buckets; it must not know what happens when one is empty. It counts only our own orders: the CA
alone knows what others order with the same account or under the same domain, so its answer (``RateLimited``) wins.
"""

import heapq
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from acme_storage import Storage, StorageCorrupt

from ..core.errors import LimitReached
from ..core.names import ServerName, Subject
from ..core.rate_limits import (
    Limit,
    LimitKind,
    Limits,
    LimitScope,
    account_scope,
    domain_scopes,
    identifier_scope,
    identifiers_scope,
)
from ..core.renewal import describe_duration, is_time
from .keys import budget_key, budget_prefix

_MOST_READ = 1_000  # of each kind, for a page
# Of the limits that all names share, a reserve is kept from visitors, who can invent names; the others count one name.
_RESERVED = (LimitKind.ORDERS, LimitKind.CERTIFICATES_PER_DOMAIN)
_OTHERS = (LimitKind.CERTIFICATES_PER_DOMAIN, LimitKind.DUPLICATES, LimitKind.FAILED_VALIDATIONS)
_COUNTED = {
    LimitKind.ORDERS: "{count} new orders",
    LimitKind.CERTIFICATES_PER_DOMAIN: "{count} certificates for {name}",
    LimitKind.DUPLICATES: "{count} certificates for exactly the names of {name}",
    LimitKind.FAILED_VALIDATIONS: "{count} failed validations of {name}",
}


@dataclass(frozen=True, slots=True)
class LimitExceeded:
    """A limit that is used up: no token is left in ``scope`` (``LimitScope.name``) until ``until`` (Unix seconds).

    ``reserve`` tokens are left, but not for visitors.
    """

    kind: LimitKind
    scope: str
    limit: Limit
    until: float
    reserve: int = 0

    def __str__(self) -> str:
        counted = _COUNTED[self.kind].format(count=self.limit.capacity, name=self.scope)
        whole = f"{counted} in {describe_duration(self.limit.period)}"
        if not self.reserve:
            return whole
        visitors = self.limit.capacity - self.reserve
        return f"{visitors} of {whole} (the rest is for managed certificates, renewals and what a person asks for)"

    def refusal(self, subject: Subject, ca: str, now: float) -> LimitReached:
        """Return the error for an order that is not placed; ``ca`` names the CA in messages."""
        wait = describe_duration(self.until - now)
        return LimitReached(
            f"{subject}: {self} are used up at {ca}; the next order is possible in {wait}", until=self.until
        )


@dataclass(frozen=True, slots=True)
class Remaining:
    """What is left of ``limit`` in ``scope`` (``LimitScope.name``), in whole tokens; ``full_at`` in Unix seconds."""

    kind: LimitKind
    scope: str
    limit: Limit
    left: int
    full_at: float


@dataclass(frozen=True, slots=True)
class Bucket:
    """When it is full again (Unix seconds), and the ``LimitScope.name`` that it counts."""

    full_at: float = 0.0
    scope: str = ""

    def to_record(self) -> bytes:
        return json.dumps({"full_at": self.full_at, "scope": self.scope}).encode()

    @classmethod
    def from_record(cls, record: bytes | None) -> Self:
        """Read what ``to_record`` wrote. Anything else means a full bucket: if it is not, the CA will say so."""
        try:
            fields = json.loads(record or b"")
            bucket = cls(float(fields["full_at"]), str(fields["scope"]))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return cls()
        return bucket if is_time(bucket.full_at) else cls()


class RateLimiter:
    """The buckets of one CA in one storage. Every method blocks, is safe from any thread, and raises ``StorageError``.

    A renewal that tells the CA which certificate it ``replaces`` (RFC 9773 section 5) is exempt from all limits at
    Let's Encrypt: do not check or count its order. Its failed validations count, and ``check_validations`` checks only
    them: the CA would accept the order, but after enough failed validations it bars the name.

    Each limit is counted when Let's Encrypt counts it: an order when it is placed, a certificate when it is issued, a
    validation when it has failed. So concurrent orders can lead to more certificates than were left when they were
    checked, as at the CA. A limit that is None is never used up, and costs nothing.
    """

    def __init__(self, storage: Storage, directory: str, limits: Limits, now: Callable[[], float]) -> None:
        """``directory`` is the CA's URL, ``now`` gives Unix seconds."""
        self._storage = storage
        self._directory = directory
        self._limits = limits
        self._now = now
        self.has_limits = limits != Limits()
        """Whether there is any limit: without one there is nothing to check or count."""

    def check(self, names: tuple[ServerName, ...], *, for_visitor: bool = False) -> LimitExceeded | None:
        """Return the limit that forbids an order of these names, the longest of several. Only reads.

        An order ``for_visitor`` must leave the reserve of shared limits (``Limit.reserve``).
        """
        scopes = dict.fromkeys(
            (
                account_scope(),
                *domain_scopes(names),
                identifiers_scope(names),
                *(identifier_scope(name) for name in names),
            )
        )
        return self._longest(scopes, for_visitor)

    def check_validations(self, names: tuple[ServerName, ...]) -> LimitExceeded | None:
        """Return the limit that forbids validating them again, the longest of several. Only reads."""
        return self._longest(identifier_scope(name) for name in names)

    def take_order(self, names: tuple[ServerName, ...], *, for_visitor: bool = False) -> LimitExceeded | None:
        """Check as ``check`` does, and count an order of these names, which must be placed now.

        Returns the limit that forbids it, having counted nothing. Concurrent nodes never take the same token.
        """
        return self.check(names, for_visitor=for_visitor) or self._take(account_scope(), for_visitor)

    def count_certificate(self, names: tuple[ServerName, ...]) -> None:
        """Count a certificate that was issued, for its registered domains and for its set of names."""
        for scope in (*domain_scopes(names), identifiers_scope(names)):
            self._take(scope)

    def count_failed_validation(self, name: ServerName) -> None:
        """Count a validation of ``name`` that failed."""
        self._take(identifier_scope(name))

    def remaining(self, most: int = 20) -> tuple[Remaining, ...]:
        """Return what is left for the account, then the ``most`` least full of the other scopes that are not full.

        Reads all of those, up to 1,000 of each kind: call it now and then, not for each order. Some stores remove
        expired records only when they are listed, so call it at least once an hour.
        """
        now = self._now()
        others = heapq.nsmallest(
            most,
            self._others(now),
            key=lambda left: ((now - left.full_at) / left.limit.period, left.kind, left.scope),
        )
        limit = self._limits.orders
        if limit is None:
            return tuple(others)
        account = self._read(self._key(account_scope()))
        return (_left(LimitKind.ORDERS, limit, account, now), *others)

    def _others(self, now: float) -> Iterator[Remaining]:
        """Yield what is left of each bucket that is not full, except the account's."""
        for kind in _OTHERS:
            limit = self._limits.of(kind)
            if limit is None:
                continue
            for key in self._storage.keys(budget_prefix(self._directory, kind), limit=_MOST_READ):
                bucket = self._read(key)
                if bucket.full_at > now:
                    yield _left(kind, limit, bucket, now)

    def _longest(self, scopes: Iterable[LimitScope], for_visitor: bool = False) -> LimitExceeded | None:
        found = [exhausted for scope in scopes if (exhausted := self._exceeded(scope, for_visitor)) is not None]
        return max(found, key=lambda exhausted: exhausted.until, default=None)

    def _exceeded(self, scope: LimitScope, for_visitor: bool) -> LimitExceeded | None:
        limit = self._limits.of(scope.kind)
        if limit is None:
            return None
        return _edge(scope, limit, self._read(self._key(scope)), self._now(), for_visitor=for_visitor)

    def _take(self, scope: LimitScope, for_visitor: bool = False) -> LimitExceeded | None:
        """Take a token, or return the limit that forbids it. Concurrent writers never lose a token."""
        limit = self._limits.of(scope.kind)
        if limit is None:
            return None
        key = self._key(scope)
        while True:  # some node's swap succeeds in every round
            record = self._readable_record(key)
            bucket, now = Bucket.from_record(record), self._now()
            if (exhausted := _edge(scope, limit, bucket, now, for_visitor=for_visitor)) is not None:
                return exhausted
            full_at = limit.spend(bucket.full_at, now)
            if self._storage.swap(key, record, Bucket(full_at, scope.name).to_record(), ttl=full_at - now):
                return None

    def _readable_record(self, key: str) -> bytes | None:
        try:
            return self._storage.get(key)
        except StorageCorrupt:
            self._storage.delete(key)  # otherwise no swap would ever succeed
            return None

    def _read(self, key: str) -> Bucket:
        try:
            return Bucket.from_record(self._storage.get(key))
        except StorageCorrupt:
            return Bucket()

    def _key(self, scope: LimitScope) -> str:
        return budget_key(self._directory, scope.kind, scope.mark)


def _edge(scope: LimitScope, limit: Limit, bucket: Bucket, now: float, *, for_visitor: bool) -> LimitExceeded | None:
    left, reserve = (
        limit.remaining(bucket.full_at, now),
        limit.reserve if for_visitor and scope.kind in _RESERVED else 0,
    )
    if left > reserve:
        return None
    return LimitExceeded(scope.kind, scope.name, limit, limit.next_at(bucket.full_at, now, reserve), reserve)


def _left(kind: LimitKind, limit: Limit, bucket: Bucket, now: float) -> Remaining:
    full_at = now + limit.debt(bucket.full_at, now)
    return Remaining(kind, bucket.scope, limit, limit.remaining(bucket.full_at, now), full_at)
