"""Check the storage: whether it works, and which of its records cause trouble.

This module knows what is stored; it must not know any CA.
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
from ..store.keys import ACCOUNTS_PREFIX, CERTIFICATES_PREFIX, probe_key
from ..store.nodes import Nodes
from ..store.plain_text import plain_text_warning
from ..store.store import Store
from ..store.usage_marks import UsageMarks
from .finding import Finding, fail, passed, warn

# At most so many certificates are read, and so many of each trouble are reported; a longer report would not be read.
_MOST_READ, _MOST_REPORTED = 1_000, 10


class Stored:
    """The configured storage; ``store`` is None if it does not work. ``close`` it."""

    def __init__(self, config: Config, confdir: Path) -> None:
        self._config = config
        self._confdir = confdir
        self.store: Store | None = None
        self._storage: Storage | None = None
        self.proxies = 0
        self.accounts: dict[str, str] = {}  # account URLs by the CA's directory

    def inspect(self) -> Iterator[Finding]:
        """Open it, use it, and check its records."""
        try:
            self._storage = storage = open_storage(self._config.storage, default_folder=self._confdir)
            if warning := plain_text_warning(self._config.storage):
                yield warn(warning)
            yield from self._works(storage)
            self.store = Store(storage, RecordCipher.of(self._config))
            yield from self._nodes(storage)
            yield from self._keys(self.store)
            yield from self._troubles(self.store)
            yield from self._sealed(storage)
            for ca_info in known_cas.resolve_all(self._config.issuers) if self._config.orders else ():
                self.accounts[ca_info.directory] = self.store.account_uri(ca_info.directory) or ""
        except (ValueError, StorageError) as error:
            self.store = None
            yield fail(f"acme_storage: {error}")

    def close(self) -> None:
        if self._storage is not None:
            self._storage.close()

    def _works(self, storage: Storage) -> Iterator[Finding]:
        key, value = probe_key(secrets.token_hex(8)), b"probe"
        written = storage.swap(key, None, value, ttl=60)
        right = written and storage.get(key) == value and not storage.swap(key, None, value)
        storage.delete(key)
        if right:
            yield passed("storage can be read, written and locked")
        else:
            yield fail("acme_storage: a written record cannot be read back, or is not locked")

    def _nodes(self, storage: Storage) -> Iterator[Finding]:
        nodes = Nodes(storage)
        self.proxies = len(nodes.list_up())
        if not self._config.orders and not nodes.control_is_up():
            yield warn("no control node is up to order for this data node; start one with acme_role=control")

    def _keys(self, store: Store) -> Iterator[Finding]:
        """Report what is wrong with acme_storage_key, judging by one account and one certificate."""
        try:
            store.verify_keys(accounts=self._config.orders)
        except RecordRefused as error:
            yield fail(str(error))

    def _sealed(self, storage: Storage) -> Iterator[Finding]:
        """Report whether ``acme_storage_sealed_only`` can be set, or what it would refuse."""
        if not self._config.storage_keys:
            return
        strict, prefixes = RecordCipher.of(self._config, sealed_only=True), [CERTIFICATES_PREFIX]
        prefixes += [ACCOUNTS_PREFIX] if self._config.orders else []
        keys = [key for prefix in prefixes for key in storage.keys(prefix, limit=_MOST_READ)]
        unsealed = [key for key in keys if not _is_sealed(strict, storage, key)]
        if unsealed:
            yield warn(
                f"{len(unsealed)} of {len(keys)} stored records are not sealed, for example {unsealed[0]}; if they are "
                "yours, run mitmproxy-acme rotate-storage-key"
            )
        elif keys and not self._config.storage_sealed_only:
            more = f"; {_MOST_READ} of a kind were checked" if len(keys) >= _MOST_READ else ""
            yield passed(f"all stored records are sealed, so acme_storage_sealed_only=true can be set{more}")

    def _troubles(self, store: Store) -> Iterator[Finding]:
        """Report certificates that expire, and names that wait after a failure."""
        now, ids = time.time(), store.ids(limit=_MOST_READ + 1)
        idle = self._config.lets_idle_expire
        troubles = [advice for id in ids[:_MOST_READ] if (advice := _trouble(store, id, now, idle_is_well=idle))]
        failing = store.backoffs({}, now, limit=_MOST_READ)
        for scope, backoff in sorted(failing.items()):
            wait = describe_duration(backoff.until - now)
            troubles.append(f"{scope} failed; the next attempt is in {wait}: {backoff.reason}")
        yield from map(warn, troubles[:_MOST_REPORTED])
        if len(troubles) > _MOST_REPORTED:
            yield warn(f"{len(troubles) - _MOST_REPORTED} more are expiring or failing; mitmproxy-acme list shows them")
        more = f"; only the first {_MOST_READ} were checked" if len(ids) > _MOST_READ else ""
        if ids and not troubles:
            yield passed(f"none of the {min(len(ids), _MOST_READ)} stored certificates is expiring or failing{more}")


def _is_sealed(strict: RecordCipher, storage: Storage, key: str) -> bool:
    try:
        record = storage.get(key)
        return record is None or bool(strict.open(key, record))
    except (StorageCorrupt, CertificateError, RecordRefused):
        return False


def _trouble(store: Store, id: ServerName, now: float, *, idle_is_well: bool) -> str:
    try:
        slot = store.slot(id)
    except RecordRefused:
        return ""  # reported once, not for each certificate
    certificate = slot.certificate
    if certificate is None and (slot.corrupt or slot.record is not None):
        return f"the stored certificate of {id} cannot be read and counts as absent; the proxies order another"
    if certificate is None or not is_expiring(certificate, now):
        return ""
    if idle_is_well and UsageMarks(store.storage).is_idle(id, certificate.begun):
        return ""  # no client asks for it
    left = certificate.not_after - now
    when = f"expires in {describe_duration(left)}" if left > 0 else "has expired"
    return f"the certificate of {certificate.id} {when}; a running proxy renews it, or mitmproxy-acme renew"
