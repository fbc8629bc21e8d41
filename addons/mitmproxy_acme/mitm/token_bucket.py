"""Pace: how often something may be done, and how much at once.

This module knows a token bucket; it must not know what is bounded. Use it from one thread.
"""

from collections.abc import Callable


class TokenBucket:
    """Allows ``burst`` at once, and ``rate`` a second from then on. Constant memory and time."""

    def __init__(self, burst: int, rate: float, clock: Callable[[], float]) -> None:
        """``clock`` returns seconds that only grow, such as ``time.monotonic``."""
        self._burst, self._rate, self._clock = burst, rate, clock
        self._left, self._at = float(burst), clock()

    def take(self) -> bool:
        """Say whether it may be done once now, and count it if so."""
        now = self._clock()
        self._left = min(self._left + (now - self._at) * self._rate, float(self._burst))
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
