"""Admission: how many new names visitors can bring, each client and all together.

This module knows counts in memory; it must not know what is ordered, or what is stored. A name that has a certificate,
or had one, is never counted here; nor is one that the operator lists or a person asks for.
"""

import logging
import time
from collections.abc import Callable

from ...config.orders_per_client import OrdersPerClient
from ...core.errors import BackingOff, ClientLimited
from ...core.log_throttle import LogThrottle
from ...core.lru_cache import LruCache
from ...core.names import Subject
from ...core.rate_limits import Limit
from ...core.renewal import describe_duration
from ...core.structured_logging import fields

logger = logging.getLogger(__name__)

# Of one node. A burst of a thousand unknown names is what a new site may bring.
_NEW_NAMES = Limit(2_000, 3_600.0)
# Lookups in storage that find nothing, of one node: 20,000 at once, 200 a second.
_FRUITLESS = Limit(20_000, 100.0)
_CLIENTS = 10_000


class Admission:
    """The bounds of one node. Use it from one event loop; nothing here waits."""

    def __init__(
        self, per_client: OrdersPerClient, now: Callable[[], float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``now`` gives Unix seconds, ``clock`` seconds that only grow."""
        self._rule = per_client
        self._now = now
        self._clients: LruCache[str, float] = LruCache(_CLIENTS)  # when the bucket of each is full again
        self._names = self._lookups = 0.0  # when these buckets are full again
        window = per_client.limit.period if per_client.limit else 0.0
        self._client_throttle = LogThrottle(clock, window)
        self._throttle = LogThrottle(clock, _NEW_NAMES.period)

    def require_client(self, subject: Subject, client: str | None) -> None:
        """Raise ``ClientLimited`` where this client has brought as many new names as it may."""
        limit, key = self._rule.limit, self._rule.key(client)
        if limit is None or key is None or limit.remaining(full_at := self._clients.get(key) or 0.0, self._now()) > 0:
            return
        if count := self._client_throttle.count_event():
            logger.warning(
                "%s: not ordered: clients in %s have brought %d new names in %s (acme_orders_per_client); "
                "%d name(s) of such clients were not ordered since this was last logged",
                subject,
                key,
                limit.capacity,
                describe_duration(limit.period),
                count,
                extra=fields("client_limited", name=subject.id, client=key, count=count),
            )
        until = limit.next_at(full_at, self._now())
        wait = describe_duration(until - self._now())
        raise ClientLimited(f"{subject}: this client can bring the next new name in {wait}", until=until)

    def admit(self, subject: Subject, client: str | None) -> None:
        """Count a new name before it is ordered. Raises ``ClientLimited``, or ``BackingOff`` for all clients."""
        self.require_client(subject, client)
        now = self._now()
        if _NEW_NAMES.remaining(self._names, now) < 1:
            if count := self._throttle.count_event():
                logger.warning(
                    "%s: not ordered: visitors have brought %d new names in %s, as many as a node takes; "
                    "%d name(s) were not ordered since this was last logged",
                    subject,
                    _NEW_NAMES.capacity,
                    describe_duration(_NEW_NAMES.period),
                    count,
                    extra=fields("new_names_limited", name=subject.id, count=count),
                )
            until = _NEW_NAMES.next_at(self._names, now)
            raise BackingOff(f"{subject}: visitors have brought too many new names", until=until)
        self._names = _NEW_NAMES.spend(self._names, now)
        limit, key = self._rule.limit, self._rule.key(client)
        if limit is not None and key is not None:
            self._clients.put(key, limit.spend(self._clients.get(key) or 0.0, now))

    def require_lookup(self, subject: Subject) -> None:
        """Raise ``BackingOff`` where too many lookups in storage have found nothing."""
        now = self._now()
        if _FRUITLESS.remaining(self._lookups, now) < 1:
            raise BackingOff(f"{subject}: visitors ask for too many names that have no certificate", until=now + 1)

    def count_fruitless(self) -> None:
        """Count a lookup in storage that has found nothing."""
        self._lookups = _FRUITLESS.spend(self._lookups, self._now())
