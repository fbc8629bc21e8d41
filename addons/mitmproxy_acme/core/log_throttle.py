"""LogThrottle: one log line for many equal events, with their number.

This module knows counts and time; it must not know what is counted. Use it from one thread.
"""

from collections.abc import Callable

_INTERVAL = 60.0


class LogThrottle:
    """Says when a line is due: for the first event at once, then at most once a minute."""

    def __init__(self, clock: Callable[[], float], interval: float = _INTERVAL) -> None:
        """``clock`` returns seconds that never go back, such as ``time.monotonic``."""
        self._clock, self._interval = clock, interval
        self._count, self._due = 0, clock()

    def count_event(self) -> int:
        """Count an event. Return the number of events since the last line if a line is due now, else 0."""
        self._count += 1
        now = self._clock()
        if now < self._due:
            return 0
        count, self._count, self._due = self._count, 0, now + self._interval
        return count
