"""A bounded mapping whose entries expire; the least recently used go first.

This module knows nothing of the values. Use it from one thread.
"""

from collections.abc import Callable
from dataclasses import dataclass

from cachetools import TLRUCache


@dataclass(frozen=True, slots=True)
class _Entry[V]:
    value: V
    until: float


class ExpiringCache[K, V]:
    """At most ``size`` values by key, each for some seconds. ``get`` counts as use."""

    def __init__(self, size: int, longest: float, now: Callable[[], float]) -> None:
        """No value is kept for more than ``longest`` seconds; ``now`` gives Unix seconds."""
        self._longest = longest
        self._now = now
        self._entries: TLRUCache[K, _Entry[V]] = TLRUCache(size, ttu=_expiry, timer=now)

    def get(self, key: K) -> V | None:
        entry = self._entries.get(key)
        # One that ends later than that was put before the clock was set back.
        return entry.value if entry is not None and entry.until - self._now() <= self._longest else None

    def put(self, key: K, value: V, seconds: float) -> None:
        self._entries[key] = _Entry(value, self._now() + seconds)

    def forget(self, key: K) -> None:
        self._entries.pop(key, None)

    def __len__(self) -> int:
        return len(self._entries)


def _expiry(key: object, entry: _Entry[object], now: float) -> float:
    return entry.until
