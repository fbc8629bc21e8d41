"""A token bucket in memory: how often something may happen, and how often at once.

This module must not know what is limited. Use it from one thread.
"""

from collections.abc import Callable


class TokenBucket:
    """Allows ``burst`` at once, and ``rate`` a second after that. Takes constant memory and time."""

    def __init__(self, burst: int, rate: float, clock: Callable[[], float]) -> None:
        """``clock`` returns monotonic seconds, such as ``time.monotonic``."""
        self._burst, self._rate, self._clock = burst, rate, clock
        self._left, self._at = float(burst), clock()

    def take(self) -> bool:
        """Take a token and return True, or return False if there is none now."""
        now = self._clock()
        self._left = min(self._left + (now - self._at) * self._rate, float(self._burst))
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
