"""The renewal schedule: each check is listed under its minute, so that a pass costs only what is due.

This module knows entries and minutes; it must not know why a certificate is checked, nor a clock. A needless entry is
harmless (the check finds nothing to do), a missing one is not: a new entry is written before the old one is removed.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from acme_storage import Storage, StorageCorrupt

from ..core.names import ServerName
from ..core.renewal import RenewalInfo, is_time
from .keys import CALENDAR_PREFIX, calendar_key, parse_minute_key, renewal_info_key

_MINUTE = 60
_PAGE = 200


@dataclass(frozen=True, slots=True)
class ScheduledCheck:
    """Check ``id`` at ``at`` (Unix seconds)."""

    id: ServerName
    at: float

    @property
    def key(self) -> str:
        return calendar_key(int(self.at // _MINUTE), self.id)


class RenewalSchedule:
    """The entries in one storage. Every method blocks, is safe from any thread, and raises ``StorageError``."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def add(self, entry: ScheduledCheck) -> None:
        """Add an entry; a second one for the same id and minute replaces the first."""
        self._storage.put(entry.key, str(entry.at).encode())

    def move(self, entry: ScheduledCheck, at: float) -> None:
        """Move the entry to another time."""
        moved = ScheduledCheck(entry.id, at)
        self.add(moved)
        if moved.key != entry.key:
            self._storage.delete(entry.key)

    def remove(self, entry: ScheduledCheck) -> None:
        self._storage.delete(entry.key)

    def forget(self, entry: ScheduledCheck) -> None:
        """Remove the entry of an id without a certificate, and what the CA said about its last certificate."""
        self.remove(entry)
        self._storage.delete(renewal_info_key(entry.id))

    def is_listed(self, entry: ScheduledCheck) -> bool:
        """Say whether the entry is still there, or another node has moved or removed it."""
        try:
            return self._storage.get(entry.key) is not None
        except StorageCorrupt:
            return True

    def due_by(self, moment: float, *, after: str = "", over_by: float = 0.0) -> Iterator[ScheduledCheck]:
        """Yield every entry up to the minute of ``moment`` and behind the key ``after``, minute by minute.

        A page of keys at a time. An entry whose minute is over by ``over_by`` (Unix seconds) is not read, its time is
        that of its minute: a backlog costs its listing.
        """
        last = calendar_key(int(moment // _MINUTE) + 1, "")
        while keys := self._storage.keys(CALENDAR_PREFIX, after=after, limit=_PAGE):
            for key in keys:
                if key >= last:
                    return
                if (entry := self._read(key, over_by)) is not None:
                    yield entry
            after = keys[-1]

    def _read(self, key: str, over_by: float) -> ScheduledCheck | None:
        try:
            minute, id = parse_minute_key(key)
        except ValueError:
            return None  # not ours; the other entries still count
        listed_for = ScheduledCheck(id, minute * _MINUTE)  # enough to check it, if the value is broken
        if (minute + 1) * _MINUTE <= over_by:
            return listed_for
        try:
            value = self._storage.get(key)
            entry = ScheduledCheck(id, float(value)) if value is not None else None
        except (StorageCorrupt, ValueError):
            return listed_for
        return entry if entry is None or entry.at // _MINUTE == minute else listed_for

    def renewal_info(self, id: ServerName, renewal_id: str | None) -> RenewalInfo | None:
        """Return what the CA last said about the certificate with this RFC 9773 identifier."""
        try:
            value = self._storage.get(renewal_info_key(id))
            fields = json.loads(value) if value is not None else {}
            info = RenewalInfo(**fields["info"]) if fields.get("id") == renewal_id else None
            return info if info is not None and _is_valid(info) else None
        except (StorageCorrupt, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            return None

    def save_renewal_info(self, id: ServerName, renewal_id: str, info: RenewalInfo) -> None:
        """Store what the CA said, replacing what it said about the previous certificate."""
        record = json.dumps({"id": renewal_id, "info": asdict(info)}).encode()
        self._storage.put(renewal_info_key(id), record)


def _is_valid(info: RenewalInfo) -> bool:
    """Say whether a CA may have said this. Raises ``TypeError`` for some of what it cannot have said."""
    is_text = isinstance(info.explanation_url, str) and info.explanation_url.isprintable()  # it goes into the log
    return is_text and info.start <= info.end and all(map(is_time, (info.start, info.end, info.ask_again)))
