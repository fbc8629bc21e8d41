"""New names: for how long, and for how many of them, backoffs are stored if the name never had a certificate.

This module knows counts and times; it must not know what a backoff is for. Strangers can invent any number of names,
and could fill a storage with a month-long record of each.
"""

from collections.abc import Callable

from ..core.backoff import Backoff

_MOST = 1_000
# Seconds. A name that fails again within this time waits longer, like any other name.
_LEAST = 3_600.0


class NewNames:
    """The new names that one node has stored: at most 1,000 at a time. Use it from one event loop."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._ends: dict[str, float] = {}

    def time_to_live(self, scope: str, backoff: Backoff) -> float | None:
        """Return for how many seconds to store the backoff, and count it; None to keep it in memory only.

        It is stored for twice its length, so that the next failure counts as consecutive.
        """
        now = self._now()
        ttl = stored_for(backoff, now)
        if len(self._ends) >= _MOST:
            self._ends = {known: end for known, end in self._ends.items() if end > now}
        if len(self._ends) >= _MOST and scope not in self._ends:
            return None
        self._ends[scope] = now + ttl
        return ttl


def stored_for(backoff: Backoff, since: float) -> float:
    """Return for how many seconds the backoff of a new name is stored that is written at ``since`` (Unix seconds)."""
    return max(2 * (backoff.until - since), _LEAST)
