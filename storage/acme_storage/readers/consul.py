"""A reader of plain values that another program stores in Consul's key/value store, under the URL's path.

This module knows Consul's listing and reading, and nothing about the meaning of any key.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from consul.exceptions import ConsulException

from acme_storage import http_session
from acme_storage.consul import reach, reason
from acme_storage.errors import StorageUnavailable

_DENIED = "the token may not read here; it needs key_prefix read on the whole path"


def open_reader(url: str) -> "ConsulReader":
    """Return the reader for the URL; nothing is connected yet."""
    return ConsulReader(*reach(url))


class ConsulReader:
    """A ``Reader``."""

    def __init__(self, client: Any, root: str) -> None:
        self._client = client
        self._root = root

    def __str__(self) -> str:
        return f"storage {self._client.http.base_uri} ({self._root})"

    def keys(self, prefix: str) -> list[str]:
        start = f"{self._root}/"
        with self._mapped_errors():
            found = self._ask(lambda kv: kv.get(start + prefix, keys=True))
            if not found:  # also Consul's answer to a token that may not list; for a single key, it says so
                self._ask(lambda kv: kv.get(start + prefix))
            return sorted(key.removeprefix(start) for key in found or ())

    def get(self, key: str) -> bytes | None:
        with self._mapped_errors():
            item = self._ask(lambda kv: kv.get(f"{self._root}/{key}"))
            return None if item is None else item["Value"] or b""

    def close(self) -> None:
        self._client.http.session.close()

    def _ask(self, question: Callable[[Any], tuple[Any, Any]]) -> Any:
        return http_session.retry_after_cut(lambda: question(self._client.kv))[1]

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except (ConsulException, *http_session.FOREIGN, *http_session.GARBLED) as error:
            raise StorageUnavailable(f"{self}: could not read: {reason(error, _DENIED)}") from error
