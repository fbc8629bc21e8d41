"""The event log: what happened to certificates lately, on any node, for people who watch.

    events/MOMENT.NUMBER~NODE  one event (JSON, sealed if there is a storage key)

The keys sort by time with the newest first, so a reader lists the last hundred at the cost of a hundred. Each node
removes what is older than the last few hundred now and then, so the log stays small whatever happens. It is for the
eye only: nothing is decided by it. This module knows these records; it must not know who writes or reads them when.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from acme_storage import Storage, StorageCorrupt

from ..core.errors import CertificateError, RecordRefused
from ..core.renewal import DAY, is_time
from ..core.text import one_line
from .encryption import RecordCipher
from .keys import EVENTS_PREFIX, EventId, event_key, events_after, parse_event_key

SHOWN = 100
"""The most events that a reader gets."""

_KEPT = 200
_KEPT_FOR = 30 * DAY
# A key may claim any time. What is further in the future than clocks differ would be the newest for ever.
_CLOCKS_DIFFER = 600.0
# A DNS name, or an address; the rest is for people.
_LONGEST_NAME, _LONGEST_REASON = 253, 300
_MOST = 1_000_000


class EventKind(StrEnum):
    """What happened to a certificate."""

    OBTAINED = "obtained"
    RENEWED = "renewed"
    FAILED = "failed"
    EXPIRING = "expiring"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One event of the certificate ``host``. Times are Unix seconds, ``seconds`` is how long an order took.

    ``machine`` is the host name of the node's machine, ``ca`` the CA as ``acme_ca`` writes it. ``more`` certificates
    had the same event at the same time. ``left_out`` events of the node before this one are not in the log, because
    there were too many.
    """

    id: EventId
    kind: EventKind
    host: str
    machine: str = ""
    ca: str = ""
    seconds: float | None = None
    reason: str = ""
    retry_at: float | None = None
    more: int = 0
    left_out: int = 0

    def to_record(self) -> bytes:
        fields = {
            "kind": self.kind.value,
            "host": self.host,
            "machine": self.machine,
            "ca": self.ca,
            "seconds": self.seconds,
            "reason": one_line(self.reason, _LONGEST_REASON),
            "retry_at": self.retry_at,
            "more": self.more,
            "left_out": self.left_out,
        }
        return json.dumps(fields).encode()

    @classmethod
    def from_record(cls, id: EventId, record: bytes) -> "LoggedEvent | None":
        """Read what ``to_record`` wrote; None for anything else. Every text is one line of bounded length."""
        try:
            fields = json.loads(record)
            return cls(
                id,
                EventKind(fields["kind"]),
                _text(fields["host"], _LONGEST_NAME),
                _text(fields["machine"], _LONGEST_NAME),
                _text(fields["ca"], _LONGEST_NAME),
                _seconds(fields["seconds"]),
                _text(fields["reason"], _LONGEST_REASON),
                _seconds(fields["retry_at"]),
                _count(fields["more"]),
                _count(fields["left_out"]),
            )
        except (ValueError, TypeError, KeyError, RecursionError):
            return None


class EventLog:
    """The events in one storage. Every method blocks, is safe from any thread, and raises ``StorageError``."""

    def __init__(self, storage: Storage, cipher: RecordCipher) -> None:
        self._storage = storage
        self._cipher = cipher

    def write(self, event: LoggedEvent) -> None:
        key = event_key(event.id)
        self._storage.put(key, self._cipher.seal(key, event.to_record()), ttl=_KEPT_FOR)

    def trim(self) -> None:
        """Remove all but the newest events."""
        for key in self._storage.keys(EVENTS_PREFIX, limit=2 * _KEPT)[_KEPT:]:
            self._storage.delete(key)

    def read(self, now: float, known: Mapping[str, LoggedEvent | None]) -> dict[str, LoggedEvent | None]:
        """Return the newest events by their keys, the newest first: None for a record that cannot be read.

        Only records that are not ``known`` are read. ``known`` is what the call before this one returned.
        """
        keys = self._storage.keys(EVENTS_PREFIX, after=events_after(now + _CLOCKS_DIFFER), limit=SHOWN)
        return {key: known[key] if key in known else self._read(key) for key in keys}

    def _read(self, key: str) -> LoggedEvent | None:
        try:
            id = parse_event_key(key)
            record = self._storage.get(key)
            return LoggedEvent.from_record(id, self._cipher.open(key, record)) if record is not None else None
        except (ValueError, StorageCorrupt, RecordRefused, CertificateError):  # broken, or forged
            return None


def newest(events: Iterable[LoggedEvent | None]) -> list[LoggedEvent]:
    """Return the last hundred, the newest first, each once."""
    by_id = {event.id: event for event in events if event is not None}
    return sorted(by_id.values(), key=lambda event: event.id, reverse=True)[:SHOWN]


def _text(value: object, longest: int) -> str:
    if not isinstance(value, str):
        raise TypeError
    return one_line(value, longest)


def _seconds(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not is_time(value):
        raise TypeError
    return float(value)


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
        raise TypeError
    return value
