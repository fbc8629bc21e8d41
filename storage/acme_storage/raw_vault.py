"""What another program keeps in Vault's KV version 2, in the field ``value`` of each secret, in one folder.

The first part of the URL's path is the mount; the rest, the folder in it, may be empty.

This module knows KV version 2, and nothing of any key's meaning.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hvac.exceptions import InvalidPath, VaultError

from acme_storage import web
from acme_storage.errors import StorageCorrupt, StorageUnavailable
from acme_storage.vault import reason
from acme_storage.vault_client import PARAMETERS, reach
from acme_storage.vault_login import Session


def open_raw(url: str) -> "RawVault":
    """Return what the URL names, ``/acme`` where it has no path; nothing is connected yet."""
    address = web.address_of(url, PARAMETERS)
    mount, _, folder = (address.path.strip("/") or "acme").partition("/")
    return RawVault(*reach(address), mount, folder)


class RawVault:
    """A ``Raw``."""

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
        how = {"mount_point": self._mount, "raise_on_deleted_version": True}
        found = self._ask(lambda: self._client.secrets.kv.v2.read_secret_version(path, **how))
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
        """Return the answer, None where there is nothing."""
        with self._mapped_errors():
            try:
                return web.again_after_cut(lambda: self._session.run(question))
            except InvalidPath as error:
                if error.errors:  # nothing there is told without words; with words it is the mount that is missing
                    raise
                return None

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except (VaultError, *web.FOREIGN, *web.GARBLED) as error:
            raise StorageUnavailable(f"{self}: could not read: {reason(error)}") from error
