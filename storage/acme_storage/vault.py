"""Vault's or OpenBao's KV version 2: ``vault://host:8200/secret/acme``, through hvac. The first part is the mount.

Every write compares versions. Vault removes a key only without comparing, and its comparing delete leaves the name
listed for ever. So who removes first writes, comparing, a version that says so; that decides. Then he removes all.
Whoever meets such a version waits for its end, or writes over it when its author must have died. So even a ``put``
compares: a blind one could fall between the two.

Vault lists names only, one folder at once: a page costs the folder's names, and a read of each key in the page, for
a value may have expired. There is no watch.

This module knows KV version 2, and nothing of any key's meaning. ``vault_client`` knows where it is,
``vault_record`` what lies under a key.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import batched
from math import ceil
from pathlib import Path
from typing import Any

import requests
from hvac.exceptions import Forbidden, InvalidPath, InvalidRequest, Unauthorized, VaultDown, VaultError

from acme_storage import web
from acme_storage.checks import check_key, check_limit, check_prefix, check_value, is_key
from acme_storage.errors import StorageCorrupt, StorageError, StorageUnavailable
from acme_storage.vault_client import PARAMETERS, plain_text, reach
from acme_storage.vault_login import Session
from acme_storage.vault_record import Record, pack, pack_removed, path_of, text_of, unpack

__all__ = ["VaultStore", "open_url", "plain_text", "reason"]

_READERS = 8  # at once, for one page
_ABANDONED = 10_000  # ms after which whoever began to remove must have ended: all its requests have timed out
_PATIENCE = 5.0  # for others who write the same key, or remove it


def open_url(url: str, default_folder: Path) -> "VaultStore":
    """Return the store of ``vault://host:port/mount/path`` or ``vault+https://…``; the environment fills the rest."""
    address = web.address_of(url, PARAMETERS)
    mount, _, root = (address.path.strip("/") or "secret/acme").partition("/")
    if not root or not is_key(f"{mount}/{root}"):
        raise address.wrong("needs a mount and a path in it: /secret/acme")
    return VaultStore(*reach(address), mount, root)


class VaultStore:
    """A ``Storage`` at ``root`` in ``mount``. ``now`` gives the time in seconds: the same for all who share it."""

    def __init__(
        self, client: Any, session: Session, mount: str, root: str, now: Callable[[], float] = time.time
    ) -> None:
        self._client, self._session, self._mount, self._root = client, session, mount, root
        self._name = f"{client.url} ({mount}/{root})"
        self._now = now

    def __repr__(self) -> str:
        return f"VaultStore({self._name})"

    def get(self, key: str) -> bytes | None:
        check_key(key)
        record = self._read(key)
        if record.foreign:
            raise StorageCorrupt(f"storage {self._name}: what lies at {key} was not written by this program: delete it")
        if self._is_expired(record):
            self._drop(key, record)
            return None
        return record.value

    def put(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        check_key(key)
        check_value(value, ttl)
        for record in self._attempts(key, "write"):
            if self._write(key, record, value, ttl):
                return

    def swap(self, key: str, old: bytes | None, new: bytes | None, *, ttl: float | None = None) -> bool:
        check_key(key)
        check_value(new or b"", ttl)
        for record in self._attempts(key, "swap"):
            if record.foreign or (None if self._is_expired(record) else record.value) != old:
                return False
            if old is None and new is None:
                return True
            if self._remove(key, record) if new is None else self._write(key, record, new, ttl):
                return True
        raise AssertionError("the attempts end in an error")

    def delete(self, key: str) -> None:
        check_key(key)
        for record in self._attempts(key, "delete"):
            if not record.version or self._remove(key, record):
                return

    def keys(self, prefix: str, *, after: str = "", limit: int | None = None) -> list[str]:
        check_prefix(prefix)
        check_limit(limit)
        if limit == 0 or (after > prefix and not after.startswith(prefix)):
            return []
        rest = after.removeprefix(prefix) if after.startswith(prefix) else None
        found: list[str] = []
        with ThreadPoolExecutor(_READERS) as pool:
            for keys in batched(self._walk(prefix, rest), min(limit or 500, 500)):
                found += [key for key, listed in zip(keys, pool.map(self._is_listed, keys), strict=True) if listed]
                if limit is not None and len(found) >= limit:
                    return found[:limit]
        return found

    def close(self) -> None:
        self._client.adapter.close()

    # Reading

    def _path(self, key: str) -> str:
        return f"{self._root}/{path_of(key)}"

    def _read(self, key: str) -> Record:
        how = {"mount_point": self._mount, "raise_on_deleted_version": True}
        with self._mapped_errors(f"read {key}"):
            try:
                data = self._call(lambda: self._client.secrets.kv.v2.read_secret_version(self._path(key), **how))[
                    "data"
                ]
            except InvalidPath as error:
                return Record(self._version_of_deleted(error))
            return unpack(data["metadata"]["version"], data["data"])

    def _version_of_deleted(self, error: InvalidPath) -> int:
        """Return what a comparison with nothing must name: a deletion by Vault's own means leaves its number."""
        if error.errors:  # nothing there is told without words; with words it is the mount that is missing
            raise error
        data = (error.json or {}).get("data") or {}
        return int((data.get("metadata") or {}).get("version", 0))

    def _walk(self, prefix: str, after: str | None) -> Iterator[str]:
        """Yield the keys that begin with ``prefix``, sorted; after ``prefix`` + ``after``. One request a folder."""
        for text in sorted(filter(None, map(text_of, self._list(prefix)))):
            if text.endswith("/"):
                begins = after is not None and after.startswith(text)
                if after is None or text > after or begins:
                    yield from self._walk(prefix + text, after[len(text) :] if after is not None and begins else None)
            elif (after is None or text > after) and is_key(prefix + text):
                yield prefix + text

    def _list(self, prefix: str) -> list[str]:
        folder = self._path(prefix).rstrip("/")
        with self._mapped_errors(f"list {prefix or 'all'}"):
            try:
                answer = self._call(lambda: self._client.secrets.kv.v2.list_secrets(folder, mount_point=self._mount))
            except InvalidPath as error:
                self._version_of_deleted(error)
                return []
            names: list[str] = answer["data"]["keys"]
            return names

    def _is_listed(self, key: str) -> bool:
        record = self._read(key)
        if self._is_expired(record) or self._is_abandoned(record):
            self._drop(key, record)
            return False
        return record.foreign or record.value is not None

    def _now_ms(self) -> int:
        return int(self._now() * 1000)

    def _is_expired(self, record: Record) -> bool:
        return 0 < record.expires <= self._now_ms()

    def _is_abandoned(self, record: Record) -> bool:
        return 0 < record.removed <= self._now_ms() - _ABANDONED

    # Writing: all of it compares versions

    def _attempts(self, key: str, what: str) -> Iterator[Record]:
        """Yield what is there, as often as the comparison with it fails; ends in ``StorageUnavailable``."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            record = self._read(key)
            if record.removed and not self._is_abandoned(record):
                time.sleep(0.003)  # its author is about to remove the rest
            else:
                yield record
        raise StorageUnavailable(f"storage {self._name}: could not {what} {key}: others change it all the time")

    def _write(self, key: str, record: Record, value: bytes, ttl: float | None) -> bool:
        expires = 0 if ttl is None else max(1, ceil((self._now() + ttl) * 1000))
        return self._compare(key, record, pack(value, expires, secrets.token_hex(8)))

    def _remove(self, key: str, record: Record) -> bool:
        if not self._compare(key, record, pack_removed(max(1, self._now_ms()), secrets.token_hex(8))):
            return False
        # It is decided. If this fails, the next who meets the rest after a while removes it.
        kv = self._client.secrets.kv.v2
        with suppress(StorageError), self._mapped_errors(f"delete {key}"):
            self._call(lambda: kv.delete_metadata_and_all_versions(self._path(key), mount_point=self._mount))
        return True

    def _drop(self, key: str, record: Record) -> None:
        with suppress(StorageError):  # who may only read leaves it: it is absent anyway
            self._remove(key, record)

    def _compare(self, key: str, record: Record, fields: dict[str, Any]) -> bool:
        """Write if ``record`` is still what is there, and settle what became of a lost reply."""
        with self._mapped_errors(f"write {key}"):
            started = time.monotonic()
            try:
                return self._send(key, record, fields)
            except requests.ConnectionError as error:
                # Whose mark lies there has written. Where the version is the old one, the same comparison may be sent
                # again: only one of the two can hold. Otherwise nobody can tell, and nothing is claimed.
                if not web.is_quick_cut(error, started):
                    raise
                found = self._read(key)
                if found.unique == fields["unique"]:
                    return True
                if found.version != record.version or not record.version:
                    raise
                return self._send(key, record, fields)

    def _send(self, key: str, record: Record, fields: dict[str, Any]) -> bool:
        how = {"mount_point": self._mount, "cas": record.version}
        write = self._client.secrets.kv.v2.create_or_update_secret
        try:
            answer = self._session.run(lambda: write(self._path(key), fields, **how))
        except InvalidRequest:
            if self._read(key).version == record.version:
                raise  # nobody has changed it: so it was not the comparison that failed
            return False
        answer["data"]["version"]  # version 1 has none, and does not compare
        return True

    def _call(self, call: Callable[[], Any]) -> Any:
        return web.again_after_cut(lambda: self._session.run(call))

    @contextmanager
    def _mapped_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (VaultError, *web.FOREIGN, *web.GARBLED) as error:
            raise StorageUnavailable(f"storage {self._name}: could not {what}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """Say what a foreign exception means, and what would mend it; the one map of this store."""
    if isinstance(error, VaultDown):
        return "Vault is sealed or starting: unseal it"
    if isinstance(error, Forbidden | Unauthorized):
        return "the token or login is refused, or its policy lacks MOUNT/data/PATH/* and MOUNT/metadata/PATH/*"
    if isinstance(error, InvalidPath):
        return "nothing is mounted there: check the path's first part, and enable kv version 2 on it"
    if isinstance(error, VaultError):
        # Not its words: a refused login may be quoted in them.
        return f"Vault refuses it ({type(error).__name__}): look into its log, and whether the mount is kv version 2"
    return web.reason(error)
