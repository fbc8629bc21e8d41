"""Tally: one log line for a flood of equal events, with their number.

This module knows counts and time; it must not know what is counted, or how it is said. Use it from one thread.
"""

from collections.abc import Callable

_INTERVAL = 60.0


class LogThrottle:
    """Says when a line is due: for the first event at once, then at most once a minute."""

    def __init__(self, clock: Callable[[], float], interval: float = _INTERVAL) -> None:
        """``clock`` returns seconds that only grow, such as ``time.monotonic``."""
        self._clock, self._interval = clock, interval
        self._count, self._due = 0, clock()

    def count_event(self) -> int:
        """Count an event; return how many there were since the last line if one is due now, else 0."""
        self._count += 1
        now = self._clock()
        if now < self._due:
            return 0
        count, self._count, self._due = self._count, 0, now + self._interval
        return count
