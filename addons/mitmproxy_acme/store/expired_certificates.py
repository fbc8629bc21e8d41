"""Expired certificates: listed by the minute in which each ended, until they are removed with all that belongs to them.

    expired/HOUR/MINUTE~ID  the certificate of ID ended in this minute; the value is empty
    housekeeping/walk       how far the walk has come that lists certificates which no calendar entry led to

This module knows these lists and what is stored beside a certificate; it must not know how long anything is kept. Only
keys are listed, so that finding out what is due costs a page, however much is stored.
"""

import json
from dataclasses import dataclass
from typing import Self

from acme_storage import Storage, StorageCorrupt, is_key

from ..core.backoff import Backoff
from ..core.key_types import KINDS, mark_of
from ..core.names import ServerName, name_of
from ..core.renewal import is_time
from .keys import (
    EXPIRED_PREFIX,
    backoff_key,
    certificate_key,
    expired_key,
    housekeeping_key,
    name_scope,
    parse_minute_key,
    renewal_info_key,
    usage_key,
)
from .store import Slot

_MINUTE = 60


@dataclass(frozen=True, slots=True)
class ExpiredCertificate:
    """The certificate of ``id`` ended in the minute of ``ended`` (Unix seconds)."""

    id: ServerName
    ended: float

    @property
    def key(self) -> str:
        return expired_key(int(self.ended // _MINUTE), self.id)


@dataclass(frozen=True, slots=True)
class Walk:
    """How far the walk over all stored certificates has come: behind the id ``after``; ``begin_at`` (Unix seconds) is
    when the next walk begins, once ``after`` is empty again.
    """

    after: str = ""
    begin_at: float = 0.0

    def to_record(self) -> bytes:
        return json.dumps({"after": self.after, "begin_at": self.begin_at}).encode()

    @classmethod
    def from_record(cls, record: bytes | None) -> Self:
        """Read what ``to_record`` wrote; anything else begins a new walk."""
        try:
            fields = json.loads(record or b"")
            walk = cls(str(fields["after"]), float(fields["begin_at"]))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return cls()
        is_place = not walk.after or is_key(walk.after)  # otherwise no storage could list what is behind it
        return walk if is_place and is_time(walk.begin_at) else cls()


class ExpiredCertificates:
    """The lists in one storage. Every method blocks, is safe from any thread, and raises ``StorageError``."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def add(self, entry: ExpiredCertificate) -> None:
        self._storage.put(entry.key, b"")

    def forget(self, entry: ExpiredCertificate) -> None:
        """Remove the entry, and nothing else."""
        self._storage.delete(entry.key)

    def ended_by(self, moment: float, *, limit: int) -> list[ExpiredCertificate]:
        """Return at most ``limit`` certificates that ended before the minute of ``moment``, the first to end first."""
        last = expired_key(int(moment // _MINUTE), "")
        entries = []
        for key in self._storage.keys(EXPIRED_PREFIX, limit=limit):
            if key >= last:
                break
            try:
                minute, id = parse_minute_key(key)
            except ValueError:  # not ours; it would be in the way of all others for ever
                self._storage.delete(key)
                continue
            entries.append(ExpiredCertificate(id, minute * _MINUTE))
        return entries

    def remove(self, entry: ExpiredCertificate, slot: Slot, now: float, directories: tuple[str, ...]) -> bool:
        """Remove the record that ``slot`` read, and what is stored beside it; ``directories`` are the CAs' URLs.

        Returns False, with nothing removed, if another process has written the record meanwhile.
        """
        if slot.record is not None and not self._storage.swap(certificate_key(entry.id), slot.record, None):
            return False
        self._storage.delete(renewal_info_key(entry.id))
        self._storage.delete(usage_key(entry.id))
        self._remove_backoffs(name_of(entry.id), now, directories)
        self._storage.delete(entry.key)  # last, so that a killed process leaves it to the next pass
        return True

    def _remove_backoffs(self, name: ServerName, now: float, directories: tuple[str, ...]) -> None:
        """Remove the backoffs that have ended, unless a certificate with the other kind of key remains.

        One that is active stays until it expires: the next client must not bring the name to the CA at once.
        """
        for scope in (name, *(name_scope(name, directory) for directory in directories)):
            record = self._read(backoff_key(scope))
            if record is None:
                continue
            backoff = Backoff.from_record(record)
            if (backoff is None or backoff.until <= now) and not self._has_certificate(name):
                self._storage.swap(backoff_key(scope), record, None)

    def _has_certificate(self, name: ServerName) -> bool:
        ids = (name, *(ServerName(name + mark_of(kind)) for kind in KINDS))
        return any(self._read(certificate_key(id)) is not None for id in ids)

    def _read(self, key: str) -> bytes | None:
        try:
            return self._storage.get(key)
        except StorageCorrupt:
            return None

    def walk(self) -> Walk:
        return Walk.from_record(self._read(housekeeping_key()))

    def save_walk(self, walk: Walk) -> None:
        self._storage.put(housekeeping_key(), walk.to_record())
