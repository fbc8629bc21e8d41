"""The last events of all nodes in the storage: few, bounded, and harmless whatever they contain."""

import json
from typing import Any

import pytest
from cryptography.fernet import Fernet

from acme_storage.memory import Memory
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.event_log import SHOWN, EventKind, EventLog, LoggedEvent, newest
from mitmproxy_acme.store.keys import EventId, event_key
from tests.mitmproxy_acme.fakes import EPOCH, UNSEALED, Clock

KEY = Fernet.generate_key().decode()
FAILED = LoggedEvent(
    EventId(int(EPOCH * 1000), 3, "aa"),
    EventKind.FAILED,
    "a.example.test",
    "edge-1",
    "letsencrypt",
    2.5,
    "the CA could not validate it",
    EPOCH + 60,
    2,
    7,
)


def numbered(number: int, node: str = "aa") -> LoggedEvent:
    return LoggedEvent(EventId(int(EPOCH * 1000) + number, number, node), EventKind.OBTAINED, f"n{number}.example.test")


def known(log: EventLog) -> list[LoggedEvent | None]:
    return list(log.read(EPOCH, {}).values())


@pytest.mark.parametrize("cipher", [UNSEALED, RecordCipher([KEY])])
def test_event_is_read_as_it_was_written(memory: Memory, cipher: RecordCipher) -> None:
    """Sealed or not."""
    log = EventLog(memory, cipher)
    log.write(FAILED)
    assert known(log) == [FAILED]
    assert (b"could not validate" in (memory.get(event_key(FAILED.id)) or b"")) is (cipher is UNSEALED)


def test_newest_are_read_first_and_each_record_once(memory: Memory) -> None:
    """A hundred of them, whatever is stored; a page that is open costs a listing, and a read for each new event."""
    reads = list[str]()

    class Counted(Memory):
        def get(self, key: str) -> bytes | None:
            reads.append(key)
            return super().get(key)

    storage = Counted(now=lambda: EPOCH)
    log = EventLog(storage, UNSEALED)
    for number in range(SHOWN + 20):
        log.write(numbered(number))
    read = log.read(EPOCH, {})
    assert [event.id.number for event in read.values() if event] == list(range(SHOWN + 19, 19, -1))
    assert len(reads) == SHOWN

    log.write(numbered(500))
    again = log.read(EPOCH, read)
    assert next(iter(again.values())) == numbered(500)
    assert len(again) == SHOWN
    assert len(reads) == SHOWN + 1


def test_log_stays_small(memory: Memory) -> None:
    """The oldest go; what is left ends by itself."""
    log = EventLog(memory, UNSEALED)
    for number in range(350):
        log.write(numbered(number))
    log.trim()
    kept = memory.keys("events/")
    assert len(kept) == 200
    assert known(log)[0] == numbered(349)


def test_event_ends_by_itself(memory: Memory, clock: Clock) -> None:
    """After a month."""
    log = EventLog(memory, UNSEALED)
    log.write(FAILED)
    clock.advance(30 * DAY + 1)
    assert memory.keys("events/") == []


def test_event_of_the_far_future_hides_no_other(memory: Memory) -> None:
    """Only what is further ahead than clocks may differ is left out."""
    log = EventLog(memory, UNSEALED)
    for number in range(SHOWN + 1):
        log.write(LoggedEvent(EventId(int(EPOCH + 3_600) * 1000, number, "forged"), EventKind.REMOVED, "x.test"))
    ahead = LoggedEvent(EventId(int(EPOCH + 300) * 1000, 0, "bb"), EventKind.RENEWED, "b.example.test")
    log.write(ahead)
    log.write(FAILED)
    assert known(log) == [ahead, FAILED]


_WRONG: list[dict[str, Any]] = [
    *({"kind": kind} for kind in ("", "forged", 1, None)),
    *({name: 1} for name in ("host", "machine", "ca", "reason")),
    *({name: value} for name in ("seconds", "retry_at") for value in (-1, True, "1", 1e300, 10**400, float("nan"))),
    *({name: value} for name in ("more", "left_out") for value in (-1, True, "1", 1.5, 10**9)),
]


@pytest.mark.parametrize("change", _WRONG)
def test_wrong_field_makes_a_broken_record(change: dict[str, Any]) -> None:
    """As another program may have written it."""
    fields = json.loads(FAILED.to_record()) | change
    assert LoggedEvent.from_record(FAILED.id, json.dumps(fields).encode()) is None


@pytest.mark.parametrize("record", [b"", b"{", b"[]", b"null", b"{}", b"\xff", b"[" * 60_000])
def test_broken_record_is_left_out(memory: Memory, record: bytes) -> None:
    """It is read once, and hides no other."""
    log = EventLog(memory, UNSEALED)
    memory.put(event_key(numbered(1).id), record)
    memory.put("events/what is that".replace(" ", "-"), b"")
    log.write(FAILED)
    assert newest(known(log)) == [FAILED]


def test_forged_text_is_one_bounded_line() -> None:
    """A writer of the storage reaches terminals and pages with letters alone."""
    fields = json.loads(FAILED.to_record())
    fields |= {"host": "a\x1b]0;b\x07\n" + "c" * 900, "reason": "<script>\u2028" + "x" * 100_000}
    event = LoggedEvent.from_record(FAILED.id, json.dumps(fields).encode())
    assert event is not None
    assert event.host.isprintable()
    assert event.reason.startswith("<script> x")
    assert (len(event.host), len(event.reason)) == (253, 300)


def test_with_a_storage_key_only_sealed_events_count(memory: Memory) -> None:
    """In clear text, or copied from the key of another event, they are left out."""
    sealed = EventLog(memory, RecordCipher([KEY]))
    sealed.write(FAILED)
    EventLog(memory, UNSEALED).write(numbered(1))
    memory.put(event_key(numbered(2).id), memory.get(event_key(FAILED.id)) or b"")
    assert newest(known(sealed)) == [FAILED]


def test_newest_has_each_event_once() -> None:
    """From memory and from the storage, the last hundred by time."""
    events = [numbered(number) for number in range(SHOWN + 50)]
    assert newest([*events, None, *events]) == events[: -SHOWN - 1 : -1]
