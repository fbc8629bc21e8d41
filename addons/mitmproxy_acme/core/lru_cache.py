"""A bounded mapping that drops the least recently used entries.

This module knows nothing of the values. Use it from one thread.
"""

from collections import OrderedDict


class LruCache[K, V]:
    """At most ``size`` values by key. ``get`` counts as use; every operation takes constant time."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K) -> V | None:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        while len(self._values) > self._size:
            self._values.popitem(last=False)

    def forget(self, key: K) -> None:
        self._values.pop(key, None)

    def values(self) -> list[V]:
        """Return a copy of the values; this does not count as use."""
        return list(self._values.values())

    def items(self) -> list[tuple[K, V]]:
        """Return a copy of keys and values; this does not count as use."""
        return list(self._values.items())

    def clear(self) -> None:
        self._values.clear()

    def __len__(self) -> int:
        return len(self._values)
