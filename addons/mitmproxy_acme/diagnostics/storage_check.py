"""Stored: whether the storage works, and what of it will be trouble.

This module knows what lies in storage; it must not know any CA.
"""

import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from acme_storage import Storage, StorageCorrupt, StorageError, open_storage

from ..ca import known_cas
from ..config.config import Config
from ..core.errors import CertificateError, RecordRefused
from ..core.names import ServerName
from ..core.renewal import describe_duration, is_expiring
from ..store.encryption import RecordCipher
from ..store.keys import account_prefix, certificate_prefix
from ..store.nodes import Nodes
from ..store.plain_text import plain_text_warning
from ..store.store import Store
from .finding import Finding, fail, passed, warn

# So many certificates are read, and so many of each trouble are told; more would be a report that nobody reads.
_MOST_READ, _MOST_TOLD = 1_000, 10


class Stored:
    """The storage of the options; ``store`` is None where it does not work. ``close`` it."""

    def __init__(self, config: Config, confdir: Path) -> None:
        self._config = config
        self._confdir = confdir
        self.store: Store | None = None
        self._storage: Storage | None = None
        self.proxies = 0
        self.accounts: dict[str, str] = {}  # their URLs, by the CAs' directories

    def inspect(self) -> Iterator[Finding]:
        """Open it, use it, and look at what is there."""
        try:
            self._storage = storage = open_storage(self._config.storage, default_folder=self._confdir)
            if warning := plain_text_warning(self._config.storage):
                yield warn(warning)
            yield from self._works(storage)
            self.store = Store(storage, RecordCipher.of(self._config))
            yield from self._nodes(storage)
            yield from self._seals(self.store)
            yield from self._troubles(self.store)
            yield from self._sealed(storage)
            for authority in known_cas.resolve_all(self._config.issuers) if self._config.orders else ():
                self.accounts[authority.directory] = self.store.account_uri(authority.directory) or ""
        except (ValueError, StorageError) as error:
            self.store = None
            yield fail(f"acme_storage: {error}")

    def close(self) -> None:
        if self._storage is not None:
            self._storage.close()

    def _works(self, storage: Storage) -> Iterator[Finding]:
        key, value = f"probes/{secrets.token_hex(8)}", b"probe"
        written = storage.swap(key, None, value, ttl=60)
        right = written and storage.get(key) == value and not storage.swap(key, None, value)
        storage.delete(key)
        if right:
            yield passed("storage can be read, written and locked")
        else:
            yield fail("acme_storage: what was written does not come back, or is not locked")

    def _nodes(self, storage: Storage) -> Iterator[Finding]:
        nodes = Nodes(storage)
        self.proxies = len(nodes.list_up())
        if not self._config.orders and not nodes.control_is_up():
            yield warn("no control node is up to order for this data node; start one with acme_role=control")

    def _seals(self, store: Store) -> Iterator[Finding]:
        """Say what is wrong with acme_storage_key, as far as one account and one certificate tell."""
        try:
            store.verify_keys(accounts=self._config.orders)
        except RecordRefused as error:
            yield fail(str(error))

    def _sealed(self, storage: Storage) -> Iterator[Finding]:
        """Say whether ``acme_storage_sealed_only`` can be set, or what it refuses."""
        if not self._config.storage_keys:
            return
        strict, prefixes = RecordCipher.of(self._config, sealed_only=True), [certificate_prefix()]
        prefixes += [account_prefix()] if self._config.orders else []
        keys = [key for prefix in prefixes for key in storage.keys(prefix, limit=_MOST_READ)]
        unsealed = [key for key in keys if not _is_sealed(strict, storage, key)]
        if unsealed:
            yield warn(
                f"{len(unsealed)} of {len(keys)} stored records are not sealed, {unsealed[0]} for one; run "
                "mitmproxy-acme rotate-storage-key if they are yours"
            )
        elif keys and not self._config.storage_sealed_only:
            more = f"; {_MOST_READ} of a kind were looked at" if len(keys) >= _MOST_READ else ""
            yield passed(f"all stored records are sealed, so acme_storage_sealed_only=true can be set{more}")

    def _troubles(self, store: Store) -> Iterator[Finding]:
        """Tell of certificates that expire, and of names that are left alone."""
        now, ids = time.time(), store.ids(limit=_MOST_READ + 1)
        told = [advice for id in ids[:_MOST_READ] if (advice := _trouble(store, id, now))]
        failing = store.backoffs({}, now, limit=_MOST_READ)
        for scope, backoff in sorted(failing.items()):
            wait = describe_duration(backoff.until - now)
            told.append(f"{scope} failed, and is tried again in {wait}: {backoff.reason}")
        yield from map(warn, told[:_MOST_TOLD])
        if len(told) > _MOST_TOLD:
            yield warn(f"{len(told) - _MOST_TOLD} more are expiring or failing; mitmproxy-acme list shows them")
        more = f"; only the first {_MOST_READ} were looked at" if len(ids) > _MOST_READ else ""
        if ids and not told:
            yield passed(f"none of the {min(len(ids), _MOST_READ)} stored certificates is expiring or failing{more}")


def _is_sealed(strict: RecordCipher, storage: Storage, key: str) -> bool:
    try:
        record = storage.get(key)
        return record is None or bool(strict.open(key, record))
    except (StorageCorrupt, CertificateError, RecordRefused):
        return False


def _trouble(store: Store, id: ServerName, now: float) -> str:
    try:
        slot = store.slot(id)
    except RecordRefused:
        return ""  # said once, not for each
    certificate = slot.certificate
    if certificate is None and (slot.corrupt or slot.record is not None):
        return f"the stored certificate of {id} cannot be read, and counts as none; the proxies order another"
    if certificate is None or not is_expiring(certificate, now):
        return ""
    left = certificate.not_after - now
    when = f"expires in {describe_duration(left)}" if left > 0 else "is expired"
    return f"the certificate of {certificate.id} {when}; a running proxy renews it, or mitmproxy-acme renew"
