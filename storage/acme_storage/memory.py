"""The volatile store: values in this process's memory, lost at its exit. Also the model for all other stores.

This module knows nothing about files, other processes, or the meaning of any key.
"""

import re
import threading
import time
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import islice, takewhile
from math import inf
from pathlib import Path

from acme_storage.checks import check_key, check_limit, check_prefix, check_value, refuse_parameters

_NAME = re.compile(r"[A-Za-z0-9._-]*")

_shared: dict[str, "Memory"] = {}


def open_url(url: str, default_folder: Path) -> "Memory":
    """Return the instance for ``memory:`` or ``memory:NAME``, which the whole process shares.

    The same URL returns the same instance, so that a script that mitmproxy reloads finds its values again.
    """
    refuse_parameters(url)
    name = url.partition(":")[2]
    if not _NAME.fullmatch(name):
        raise ValueError(
            "the storage URL memory: takes nothing, or a name of letters, digits, dots and dashes, after the colon"
        )
    return _shared.setdefault(name, Memory())  # one step, also for threads


class Memory:
    """A ``Storage`` in a dict. ``now`` gives the time in seconds, for ttls."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._values: dict[str, tuple[bytes, float]] = {}  # key -> value, and its expiry
        self._sorted: list[str] = []
        self._expiries: list[tuple[float, str]] = []  # a heap; entries of replaced values are stale

    def get(self, key: str) -> bytes | None:
        check_key(key)
        with self._lock:
            return self._current(key)

    def put(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        check_key(key)
        check_value(value, ttl)
        with self._lock:
            self._drop_expired()
            self._set(key, value, ttl)

    def swap(self, key: str, old: bytes | None, new: bytes | None, *, ttl: float | None = None) -> bool:
        check_key(key)
        check_value(new or b"", ttl)
        with self._lock:
            if self._current(key) != old:
                return False
            if new is None:
                self._remove(key)
            else:
                self._set(key, new, ttl)
            return True

    def delete(self, key: str) -> None:
        check_key(key)
        with self._lock:
            self._remove(key)

    def keys(self, prefix: str, *, after: str = "", limit: int | None = None) -> list[str]:
        check_prefix(prefix)
        check_limit(limit)
        with self._lock:
            self._drop_expired()
            start = max(bisect_left(self._sorted, prefix), bisect_right(self._sorted, after))
            candidates = islice(self._sorted, start, None)
            return list(islice(takewhile(lambda key: key.startswith(prefix), candidates), limit))

    def close(self) -> None:
        """Do nothing: another user of the shared instance may still need the values."""

    def _current(self, key: str) -> bytes | None:
        self._drop_expired()
        value, _ = self._values.get(key, (None, inf))
        return value

    def _set(self, key: str, value: bytes, ttl: float | None) -> None:
        if key not in self._values:
            insort(self._sorted, key)
        expires = inf if ttl is None else self._now() + ttl
        self._values[key] = (value, expires)
        if ttl is not None:
            heappush(self._expiries, (expires, key))

    def _remove(self, key: str) -> None:
        if self._values.pop(key, None) is not None:
            del self._sorted[bisect_left(self._sorted, key)]

    def _drop_expired(self) -> None:
        now = self._now()
        while self._expiries and self._expiries[0][0] <= now:
            expires, key = heappop(self._expiries)
            if self._values.get(key, (b"", inf))[1] == expires:
                self._remove(key)
