"""Waits of other clocks: a backoff that began in the future was written by a node whose clock is ahead.

Taken as it is, it would keep a name from being ordered for as much too long as that clock is ahead. This module knows
how long such a wait lasts by our own clock; it must not know what failed.
"""

from collections.abc import Callable
from dataclasses import replace

from ...core.backoff import Backoff
from ...core.lru_cache import LruCache

# Seconds. Clocks that differ by less need no correction: the error is at most that.
_CLOCKS_DIFFER = 60.0


class WaitsOfOtherClocks:
    """Moves each such wait once, to the moment when this process first saw it. Use it from one event loop."""

    def __init__(self, remembered: int, now: Callable[[], float]) -> None:
        self._now = now
        self._moved: LruCache[tuple[str, float], Backoff] = LruCache(remembered)  # by scope, and when it was to begin

    def correct(self, scope: str, backoff: Backoff) -> Backoff:
        """Return the backoff, which lasts as long as its writer meant it to, from when it was first seen here.

        It is not moved again when it is read again: it would never end. Nor is it moved back when our clock comes near
        to its beginning: it would begin again.
        """
        now, key = self._now(), (scope, backoff.since)
        moved = self._moved.get(key)
        if moved is None and backoff.since - now <= _CLOCKS_DIFFER:
            return backoff
        if moved is None:
            moved = replace(backoff, since=now, until=now + max(backoff.until - backoff.since, 0.0))
            self._moved.put(key, moved)
        return moved
