"""Vault's or OpenBao's KV version 2: ``vault://host:8200/secret/acme``, through hvac. The first part is the mount.

Every write compares versions. Vault can only remove a key without comparing, and its comparing delete leaves the name
listed for ever. So a remover first writes, comparing, a version that announces the removal; that decides. Then it
removes everything. A caller that finds such a version waits for the removal, or writes over it if the remover must have
died. So even a ``put`` compares: an unconditional one could fall between the two steps.

Vault only lists names, of one folder at a time: a page costs the folder's names, and a read of each key in the page,
because a value may have expired. Vault cannot notify about changes, and has no time to live: that is compared with the
server's clock (``server_clock``).

This module knows KV version 2, and nothing about the meaning of any key. ``vault_client`` knows where the server is,
``vault_record`` the format of records.
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

from acme_storage import http_session
from acme_storage.checks import check_key, check_limit, check_prefix, check_value, is_key
from acme_storage.errors import StorageCorrupt, StorageError, StorageUnavailable
from acme_storage.server_clock import ServerClock
from acme_storage.vault_client import PARAMETERS, plain_text, reach
from acme_storage.vault_login import Session
from acme_storage.vault_record import Record, pack, pack_removed, path_of, text_of, unpack

__all__ = ["VaultStore", "open_url", "plain_text", "reason"]

_READERS = 8  # at once, for one page
_ABANDONED = 10_000  # ms after which a remover must have ended: all its requests have timed out
_COMPARISONS = 3  # of one record, if Vault refuses although the version is the same
_PATIENCE = 5.0  # seconds, for others who write or remove the same key
# Seconds for which an announced removal stays unchanged before it is written over though its time is to come: its
# remover's clock was ahead, and would keep everybody from the key for as long.
_UNCHANGED = 2.5


def open_url(url: str, default_folder: Path) -> "VaultStore":
    """Return the store of ``vault://host:port/mount/path`` or ``vault+https://…``; the environment gives the rest."""
    parsed = http_session.parse_http_url(url, PARAMETERS)
    mount, _, root = (parsed.path.strip("/") or "secret/acme").partition("/")
    if not root or not is_key(f"{mount}/{root}"):
        raise parsed.wrong("needs a mount and a path in it, such as /secret/acme")
    client, session = reach(parsed)
    return VaultStore(client, session, mount, root, ServerClock(client.session))


class VaultStore:
    """A ``Storage`` at ``root`` in ``mount``. ``now`` gives the time in seconds; all users must share it."""

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
            raise StorageCorrupt(f"storage {self._name}: the value at {key} was not written by this program; delete it")
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
        raise AssertionError("unreachable: the attempts end in an error")

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
        options = {"mount_point": self._mount, "raise_on_deleted_version": True}
        with self._mapped_errors(f"read {key}"):
            try:
                data = self._call(lambda: self._client.secrets.kv.v2.read_secret_version(self._path(key), **options))[
                    "data"
                ]
            except InvalidPath as error:
                return Record(self._version_of_deleted(error))
            return unpack(data["metadata"]["version"], data["data"])

    def _version_of_deleted(self, error: InvalidPath) -> int:
        """Return the version that a comparison with nothing must name: Vault's own delete leaves a version number."""
        if error.errors:  # a missing secret has no error text; a missing mount has one
            raise error
        data = (error.json or {}).get("data") or {}
        return int((data.get("metadata") or {}).get("version", 0))

    def _walk(self, prefix: str, after: str | None) -> Iterator[str]:
        """Yield the keys that begin with ``prefix``, sorted; after ``prefix`` + ``after``. One request per folder."""
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

    # Writing: every write compares versions

    def _attempts(self, key: str, what: str) -> Iterator[Record]:
        """Yield the current record as often as the comparison with it fails; ends in ``StorageUnavailable``."""
        begun = since = time.monotonic()
        unique = ""
        while (now := time.monotonic()) < begun + _PATIENCE:
            record = self._read(key)
            if record.unique != unique:
                unique, since = record.unique, now
            stays = record.removed > self._now_ms() + _ABANDONED and now - since > _UNCHANGED
            if record.removed and not stays and not self._is_abandoned(record):
                time.sleep(0.003)  # another process is removing it
            else:
                yield record
        raise StorageUnavailable(f"storage {self._name}: could not {what} {key}: others keep changing it")

    def _write(self, key: str, record: Record, value: bytes, ttl: float | None) -> bool:
        expires = 0 if ttl is None else max(1, ceil((self._now() + ttl) * 1000))
        return self._compare(key, record, pack(value, expires, secrets.token_hex(8)))

    def _remove(self, key: str, record: Record) -> bool:
        if not self._compare(key, record, pack_removed(max(1, self._now_ms()), secrets.token_hex(8))):
            return False
        # It is decided. If this fails, the next process that finds the rest, some time later, removes it.
        kv = self._client.secrets.kv.v2
        with suppress(StorageError), self._mapped_errors(f"delete {key}"):
            self._call(lambda: kv.delete_metadata_and_all_versions(self._path(key), mount_point=self._mount))
        return True

    def _drop(self, key: str, record: Record) -> None:
        with suppress(StorageError):  # a client that may only read leaves it: it counts as absent anyway
            self._remove(key, record)

    def _compare(self, key: str, record: Record, fields: dict[str, Any]) -> bool:
        """Write if ``record`` is still current; find out what happened if the reply is lost."""
        with self._mapped_errors(f"write {key}"):
            started = time.monotonic()
            try:
                return self._send(key, record, fields)
            except requests.ConnectionError as error:
                # If our own mark is there, the write was made. If the version is the old one, the same comparison can
                # be sent again, because only one of the two can succeed. Otherwise the outcome is unknown, and we say
                # so.
                if not http_session.is_quick_cut(error, started):
                    raise
                found = self._read(key)
                if found.unique == fields["unique"]:
                    return True
                if found.version != record.version or not record.version:
                    raise
                return self._send(key, record, fields)

    def _send(self, key: str, record: Record, fields: dict[str, Any]) -> bool:
        """Write if the version is still that of ``record``; say whether it was.

        Vault's refusal of a comparison looks like any other. If the version is the same afterwards, others may have
        written and removed the key in between (a lease is held for a moment), so the same write is sent again.
        """
        options = {"mount_point": self._mount, "cas": record.version}
        write = self._client.secrets.kv.v2.create_or_update_secret
        for attempt in range(_COMPARISONS):
            try:
                answer = self._session.run(lambda: write(self._path(key), fields, **options))
            except InvalidRequest:
                if self._read(key).version != record.version:
                    return False
                if attempt == _COMPARISONS - 1:
                    raise
            else:
                answer["data"]["version"]  # missing in KV version 1, which does not compare
                return True
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _call(self, call: Callable[[], Any]) -> Any:
        return http_session.retry_after_cut(lambda: self._session.run(call))

    @contextmanager
    def _mapped_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (VaultError, *http_session.FOREIGN, *http_session.GARBLED) as error:
            raise StorageUnavailable(f"storage {self._name}: could not {what}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """Return what a foreign exception means, and how to fix it; this store's only translation of errors."""
    if isinstance(error, VaultDown):
        return "Vault is sealed or starting; unseal it"
    if isinstance(error, Forbidden | Unauthorized):
        return "the token or login is refused, or its policy lacks MOUNT/data/PATH/* and MOUNT/metadata/PATH/*"
    if isinstance(error, InvalidPath):
        return "nothing is mounted there; check the path's first part, and enable kv version 2 on it"
    if isinstance(error, VaultError):
        # Not its text, which may quote a refused login.
        return f"Vault refuses it ({type(error).__name__}); read its log, and check that the mount is kv version 2"
    return http_session.reason(error)
