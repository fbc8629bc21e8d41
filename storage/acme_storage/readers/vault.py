"""A reader of secrets that another program stores in one folder of Vault's KV version 2, in the field ``value``.

The first part of the URL's path is the mount; the rest, the folder in it, may be empty.

This module knows KV version 2, and nothing about the meaning of any key.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hvac.exceptions import InvalidPath, VaultError

from acme_storage import http_session
from acme_storage.errors import StorageCorrupt, StorageUnavailable
from acme_storage.vault import reason
from acme_storage.vault_client import PARAMETERS, reach
from acme_storage.vault_login import Session


def open_reader(url: str) -> "VaultReader":
    """Return the reader for the URL, at ``/acme`` if it has no path; nothing is connected yet."""
    parsed = http_session.parse_http_url(url, PARAMETERS)
    mount, _, folder = (parsed.path.strip("/") or "acme").partition("/")
    return VaultReader(*reach(parsed), mount, folder)


class VaultReader:
    """A ``Reader``."""

    def __init__(self, client: Any, session: Session, mount: str, folder: str) -> None:
        self._client, self._session, self._mount, self._folder = client, session, mount, folder

    def __str__(self) -> str:
        return f"storage {self._client.url} ({self._mount}/{self._folder})"

    def keys(self, prefix: str) -> list[str]:
        kv = self._client.secrets.kv.v2
        found = self._ask(lambda: kv.list_secrets(self._folder, mount_point=self._mount))
        with self._mapped_errors():
            names: list[str] = found["data"]["keys"] if found else []
            return sorted(name for name in names if name.startswith(prefix) and not name.endswith("/"))

    def get(self, key: str) -> bytes | None:
        path = f"{self._folder}/{key}".removeprefix("/")
        options = {"mount_point": self._mount, "raise_on_deleted_version": True}
        found = self._ask(lambda: self._client.secrets.kv.v2.read_secret_version(path, **options))
        if found is None:
            return None
        with self._mapped_errors():
            value = found["data"]["data"].get("value")
        if not isinstance(value, str):
            raise StorageCorrupt(f"{self}: {key} has no text in its field value")
        return value.encode()

    def close(self) -> None:
        self._client.adapter.close()

    def _ask(self, question: Callable[[], Any]) -> Any:
        """Return the answer, None if there is nothing."""
        with self._mapped_errors():
            try:
                return http_session.retry_after_cut(lambda: self._session.run(question))
            except InvalidPath as error:
                if error.errors:  # a missing secret has no error text; a missing mount has one
                    raise
                return None

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except (VaultError, *http_session.FOREIGN, *http_session.GARBLED) as error:
            raise StorageUnavailable(f"{self}: could not read: {reason(error)}") from error
