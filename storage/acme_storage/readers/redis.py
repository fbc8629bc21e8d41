"""A reader of strings that another program stores in Redis; every key begins with the URL's namespace, maybe empty.

This module knows SCAN and GET, and nothing about the meaning of any key.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.exceptions import NoPermissionError, ResponseError

from acme_storage.errors import StorageCorrupt, StorageUnavailable
from acme_storage.redis_clients import Access, access
from acme_storage.redis_store import FOREIGN, Redis, disconnect


def open_reader(url: str) -> "RedisReader":
    """Return the reader for the URL; nothing is connected yet."""
    return RedisReader(access(url, namespace=""))


class RedisReader:
    """A ``Reader``."""

    def __init__(self, access_to: Access) -> None:
        self._access = access_to
        self._client: Any = None

    def __str__(self) -> str:
        return f"{self._access.place}, namespace {self._access.namespace!r}"

    def keys(self, prefix: str) -> list[str]:
        start = self._access.namespace
        with self._mapped_errors():
            # A set, because SCAN may return a key twice. A namespace contains no pattern characters.
            found = set(self._connected().scan_iter(match=f"{start}{prefix}*", count=self._access.scan_count))
        return sorted(key.decode("utf-8", "replace").removeprefix(start) for key in found)

    def get(self, key: str) -> bytes | None:
        with self._mapped_errors():
            try:
                value: bytes | None = self._connected().get(self._access.namespace + key)
            except ResponseError as error:
                if not str(error).startswith("WRONGTYPE"):
                    raise
                raise StorageCorrupt(f"{self._access.place}: {self._access.namespace}{key} is not a string") from None
        return value

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            disconnect(client)

    def _connected(self) -> Any:
        if self._client is None:
            self._client = self._access.connect()
        return self._client

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except NoPermissionError as error:
            rights = f"grant its user ~{self._access.namespace}* +scan +get +select"
            raise StorageUnavailable(f"{self._access.place}: the user may not read here; {rights}") from error
        except FOREIGN as error:
            raise Redis(self._access).explain(error) from error
