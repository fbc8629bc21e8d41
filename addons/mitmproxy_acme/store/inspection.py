"""Inspection: every stored record by kind and state, and what is wrong with it.

This module knows which records belong together; it must not know what is done about trouble (``repair`` does), or how
it is shown. Proxies may use the storage meanwhile. Memory holds pages, and eight bytes for each certificate and each
entry of the schedule.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum

from acme_storage import Storage, StorageCorrupt

from ..core.backoff import Backoff
from ..core.certificate import Certificate
from ..core.errors import CertificateError, RecordRefused
from ..core.key_types import KINDS, mark_of
from ..core.names import ServerName
from ..core.renewal import DAY, is_expiring
from .encryption import RecordCipher
from .keys import (
    BACKOFFS_PREFIX,
    CALENDAR_PREFIX,
    CERTIFICATES_PREFIX,
    EXPIRED_PREFIX,
    RENEWAL_INFO_PREFIX,
    USAGE_PREFIX,
    certificate_key,
    name_in_scope,
    parse_minute_key,
)
from .transfer.kinds import kind_of
from .transfer.record_rules import rules_by_prefix
from .usage_marks import UsageMarks

# Keys at a time: some stores list a whole folder for each page. And records that are read at once.
_PAGE, _AT_ONCE = 2_000, 4
_OF_CERTIFICATES = (CALENDAR_PREFIX, EXPIRED_PREFIX, RENEWAL_INFO_PREFIX, USAGE_PREFIX)


class Trouble(StrEnum):
    """What is wrong with a record."""

    BROKEN = "broken"  # it cannot be read, and counts as absent
    LOCKED = "locked"  # no key of the options opens it, or a later release wrote it
    FOREIGN = "foreign"  # no release of this project writes such a key
    ORPHANED = "orphaned"  # it belongs to a certificate that is not stored
    UNLISTED = "unlisted"  # a certificate that the renewal schedule does not have


@dataclass(frozen=True, slots=True)
class Examined:
    """One record: its kind and state (empty for kinds without), its size in bytes, and its trouble, if any.

    ``record`` None means that the storage itself cannot read it. An orphan belongs to the certificates of ``ids``.
    """

    key: str
    kind: str
    state: str
    size: int
    trouble: Trouble | None = None
    why: str = ""
    record: bytes | None = field(default=None, repr=False)
    certificate: Certificate | None = None
    ids: tuple[ServerName, ...] = ()


class Inspection:
    """The records of one storage at ``now`` (Unix seconds). Blocks, and raises ``StorageError``."""

    def __init__(self, storage: Storage, cipher: RecordCipher, now: float) -> None:
        self._storage = storage
        self._now = now
        self._marks = UsageMarks(storage)
        self._rules = rules_by_prefix(cipher, lambda key: storage.get(key) is not None, lambda: now)
        self._stored = self._listed = array("q")

    def run(self) -> Iterator[Examined]:
        """Yield every record, sorted by key; one that changes meanwhile may be missing."""
        self._stored = self._hashes(CERTIFICATES_PREFIX)
        self._listed = self._hashes(CALENDAR_PREFIX, EXPIRED_PREFIX)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for keys in self._pages(""):
                for key, record in zip(keys, pool.map(self._read, keys), strict=True):
                    if record is not None:
                        yield self._examine(key, record)

    def _pages(self, prefix: str) -> Iterator[list[str]]:
        after = ""
        while keys := self._storage.keys(prefix, after=after, limit=_PAGE):
            yield keys
            after = keys[-1]

    def _hashes(self, *prefixes: str) -> "array[int]":
        """Return the sorted hashes of all ids under some prefixes."""
        found = array("q")
        for prefix in prefixes:
            for keys in self._pages(prefix):
                found.extend(hash(id) for key in keys if (id := _id_in(key)) is not None)
        return array("q", sorted(found))

    def _read(self, key: str) -> bytes | StorageCorrupt | None:
        try:
            return self._storage.get(key)
        except StorageCorrupt as error:
            return error

    def _examine(self, key: str, record: bytes | StorageCorrupt) -> Examined:
        kind = kind_of(key)
        name = kind.name if kind is not None else key.partition("/")[0] or key
        if isinstance(record, StorageCorrupt):
            return Examined(key, name, Trouble.BROKEN, 0, Trouble.BROKEN, str(record))
        found = Examined(key, name, "", len(record), record=record)
        if kind is None:
            return _with(found, Trouble.FOREIGN, "no release of mitmproxy-acme writes such a key")
        rules = self._rules.get(kind.prefix)
        try:
            parsed = rules.read(key, record) if rules is not None else None
        except RecordRefused as error:
            return _with(found, Trouble.LOCKED, str(error))
        except CertificateError as error:
            return _with(found, Trouble.BROKEN, str(error))
        match parsed:
            case Certificate():
                return self._certificate(found, parsed) if key.startswith(CERTIFICATES_PREFIX) else found
            case Backoff():
                return self._backoff(found, parsed)
        return self._belonging(found)

    def _certificate(self, found: Examined, certificate: Certificate) -> Examined:
        state = "valid"
        if self._now >= certificate.not_after or is_expiring(certificate, self._now):
            idle = self._marks.is_idle(certificate.id, certificate.begun)
            expired = "expired" if self._now >= certificate.not_after else "expiring"
            state = "idle" if idle else expired
        stored = Examined(found.key, found.kind, state, found.size, record=found.record, certificate=certificate)
        if _has(self._listed, certificate.id):
            return stored
        return _with(stored, Trouble.UNLISTED, "the renewal schedule has no entry for it")

    def _backoff(self, found: Examined, backoff: Backoff) -> Examined:
        state = "active" if backoff.until > self._now else "ended"
        read = Examined(found.key, found.kind, state, found.size, record=found.record)
        name = name_in_scope(found.key.removeprefix(BACKOFFS_PREFIX))
        if name is None or self._now - backoff.until <= DAY:  # of a CA; or its next failure counts as consecutive
            return read
        return self._unless_stored(read, (name, *(ServerName(name + mark_of(kind)) for kind in KINDS)))

    def _belonging(self, found: Examined) -> Examined:
        """Examine what belongs to one certificate."""
        id = _id_in(found.key)
        if id is None or not found.key.startswith(_OF_CERTIFICATES):
            return found
        if found.key.startswith(CALENDAR_PREFIX) and self._now - 60.0 * parse_minute_key(found.key)[0] <= DAY:
            return found  # a certificate is scheduled before it is stored, and proxies drop what is overdue for a day
        return self._unless_stored(found, (id,))

    def _unless_stored(self, found: Examined, ids: tuple[ServerName, ...]) -> Examined:
        if any(_has(self._stored, id) for id in ids) or is_any_stored(self._storage, ids):
            return found
        return _with(found, Trouble.ORPHANED, f"no certificate is stored for {ids[0]}", ids)


def is_any_stored(storage: Storage, ids: tuple[ServerName, ...]) -> bool:
    """Say whether a certificate is stored for any of these at this moment, readable or not."""
    try:
        return any(storage.get(certificate_key(id)) is not None for id in ids)
    except StorageCorrupt:
        return True


def _with(found: Examined, trouble: Trouble, why: str, ids: tuple[ServerName, ...] = ()) -> Examined:
    state = trouble.value if trouble in (Trouble.BROKEN, Trouble.LOCKED) else found.state
    return Examined(found.key, found.kind, state, found.size, trouble, why, found.record, found.certificate, ids)


def _id_in(key: str) -> ServerName | None:
    """Return the id of the certificate that a key belongs to; None if it is not one of a certificate's."""
    for prefix in (CERTIFICATES_PREFIX, RENEWAL_INFO_PREFIX, USAGE_PREFIX):
        if key.startswith(prefix):
            return ServerName(key.removeprefix(prefix))
    try:
        return parse_minute_key(key)[1]
    except ValueError:
        return None


def _has(hashes: "array[int]", id: str) -> bool:
    wanted = hash(id)
    index = bisect_left(hashes, wanted)
    return index < len(hashes) and hashes[index] == wanted
