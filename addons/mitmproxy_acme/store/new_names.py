"""New names: how long, and how many of, the backoffs of names that never had a certificate are stored.

This module knows counts and times; it must not know what a backoff is for. Strangers can invent names without end, and
a record of each for a month would be theirs to fill a storage with.
"""

from collections.abc import Callable

from ..core.backoff import Backoff

_MOST = 1_000
# Seconds. A name that fails again within this time is left alone for longer, as any other.
_LEAST = 3_600.0


class NewNames:
    """What one node has stored of them: at most 1,000 at a time. Use it from one event loop."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._ends: dict[str, float] = {}

    def time_to_live(self, scope: str, backoff: Backoff) -> float | None:
        """Return for how many seconds to store it, and count it; None where it is to be kept in memory only.

        It outlives the backoff by its own length, so that the next failure counts as the next one in a row.
        """
        now = self._now()
        ttl = max(2 * (backoff.until - now), _LEAST)
        if len(self._ends) >= _MOST:
            self._ends = {known: end for known, end in self._ends.items() if end > now}
        if len(self._ends) >= _MOST and scope not in self._ends:
            return None
        self._ends[scope] = now + ttl
        return ttl
