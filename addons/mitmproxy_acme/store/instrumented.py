"""A storage that measures its calls.

This module knows the storage's six calls; it must not know what is stored.
"""

import time
from collections.abc import Callable

from acme_storage import Storage, StorageError

from ..core.instrumentation import Instrumentation


class InstrumentedStorage:
    """A ``Storage`` that passes every call on to another, and reports its duration to ``instrumentation``."""

    def __init__(self, storage: Storage, instrumentation: Instrumentation) -> None:
        self._storage = storage
        self._instrumentation = instrumentation

    def get(self, key: str) -> bytes | None:
        return self._timed("get", self._storage.get, key)

    def put(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        self._timed("put", self._storage.put, key, value, ttl=ttl)

    def swap(self, key: str, old: bytes | None, new: bytes | None, *, ttl: float | None = None) -> bool:
        return self._timed("swap", self._storage.swap, key, old, new, ttl=ttl)

    def delete(self, key: str) -> None:
        self._timed("delete", self._storage.delete, key)

    def keys(self, prefix: str, *, after: str = "", limit: int | None = None) -> list[str]:
        return self._timed("keys", self._storage.keys, prefix, after=after, limit=limit)

    def close(self) -> None:
        self._storage.close()

    def _timed[**P, T](self, operation: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        begun, failed = time.perf_counter(), False
        try:
            return call(*args, **kwargs)
        except StorageError:
            failed = True
            raise
        finally:
            self._instrumentation.storage(operation, time.perf_counter() - begun, failed=failed)
