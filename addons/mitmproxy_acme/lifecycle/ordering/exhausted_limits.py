"""Exhausted limits: which limits of the CAs are used up, as far as this process has seen.

This module knows limits in memory; it must not know storage, or which CA is asked instead. A visitor's new name is
refused here first, and costs no lease and no storage while the limit is used up.
"""

import logging
import time
from collections.abc import Callable

from ...core.log_throttle import LogThrottle
from ...core.lru_cache import LruCache
from ...core.names import Subject
from ...core.rate_limits import LimitKind, LimitScope, account_scope, domain_scopes
from ...core.renewal import describe_duration
from ...core.structured_logging import fields
from ...store.rate_limiter import LimitExceeded

logger = logging.getLogger(__name__)

_SHARED = (LimitKind.ORDERS, LimitKind.CERTIFICATES_PER_DOMAIN)  # that all names, or those of one domain, share
_REMEMBERED = 1_000
_LOG_EVERY = 3_600.0

type _Key = tuple[str, LimitKind, str]


class ExhaustedLimits:
    """The limits that are used up, by CA. Use it from one event loop; nothing here waits."""

    def __init__(self, now: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> None:
        """``now`` gives Unix seconds, ``clock`` seconds that only grow."""
        self._now = now
        self._clock = clock
        self._known: LruCache[_Key, LimitExceeded] = LruCache(_REMEMBERED)
        self._throttles: LruCache[_Key, LogThrottle] = LruCache(_REMEMBERED)

    def remember(self, directory: str, exhausted: LimitExceeded) -> bool:
        """Remember a limit until it has a token again, if several names share it; say whether they do."""
        shared = exhausted.kind in _SHARED
        if shared:
            self._known.put((directory, exhausted.kind, exhausted.scope), exhausted)
        return shared

    def find(self, directory: str, subject: Subject) -> LimitExceeded | None:
        """Return the limit of that CA that forbids a visitor's order of ``subject``; None where none is known."""
        if not len(self._known):
            return None
        found = [self._find(directory, scope) for scope in (account_scope(), *domain_scopes(subject.names))]
        return max((limit for limit in found if limit), key=lambda limit: limit.until, default=None)

    def _find(self, directory: str, scope: LimitScope) -> LimitExceeded | None:
        known = self._known.get((directory, scope.kind, scope.name))
        # One that ends later than the limit's period allows is from before the clock was set back.
        return known if known is not None and 0 < known.until - self._now() <= known.limit.period else None

    def log(self, directory: str, ca: str, exhausted: LimitExceeded, subject: Subject) -> None:
        """Log that ``subject`` was not ordered: once an hour for each limit, with the number since then."""
        key = (directory, exhausted.kind, exhausted.scope)
        if (throttle := self._throttles.get(key)) is None:
            self._throttles.put(key, throttle := LogThrottle(self._clock, _LOG_EVERY))
        if not (count := throttle.count_event()):
            return
        logger.warning(
            "%s: not ordered: %s are used up at %s; next attempt in %s; %d such order(s) since this was last logged",
            subject,
            exhausted,
            ca,
            describe_duration(exhausted.until - self._now()),
            count,
            extra=fields("limit_reached", name=subject.id, ca=ca, limit=exhausted.kind, count=count),
        )
