"""What becomes of a record that the storage itself cannot read: it is as good as none, or in the way of nothing."""

import pytest

from acme_storage import StorageCorrupt
from acme_storage.memory import Memory
from mitmproxy_acme.core.backoff import Backoff
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.store.expired_certificates import ExpiredCertificates, Walk
from mitmproxy_acme.store.inspection import is_any_stored
from mitmproxy_acme.store.keys import (
    backoff_key,
    calendar_key,
    certificate_key,
    housekeeping_key,
    node_key,
    renewal_info_key,
    usage_key,
)
from mitmproxy_acme.store.nodes import Node, Nodes
from mitmproxy_acme.store.renewal_schedule import RenewalSchedule, ScheduledCheck
from mitmproxy_acme.store.store import Store
from mitmproxy_acme.store.usage_marks import Usage, UsageMark, UsageMarks
from tests.mitmproxy_acme.fakes import EPOCH, UNSEALED, Clock

NAME = ServerName("a.example.test")


class Damaged(Memory):
    """Cannot read some keys; like any store it compares nothing with them, lists them, and takes another value."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._bad: set[str] = set()

    def damage(self, key: str) -> None:
        super().put(key, b"x")
        self._bad.add(key)

    def get(self, key: str) -> bytes | None:
        if key in self._bad:
            raise StorageCorrupt(f"{key} cannot be read")
        return super().get(key)

    def put(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        self._bad.discard(key)
        super().put(key, value, ttl=ttl)

    def swap(self, key: str, old: bytes | None, new: bytes | None, *, ttl: float | None = None) -> bool:
        return key not in self._bad and super().swap(key, old, new, ttl=ttl)

    def delete(self, key: str) -> None:
        self._bad.discard(key)
        super().delete(key)


@pytest.fixture
def damaged(clock: Clock) -> Damaged:
    return Damaged(clock)


def test_backoff_counts_as_none(damaged: Damaged) -> None:
    """The name is tried, and the next failure writes another."""
    store = Store(damaged, UNSEALED)
    damaged.damage(backoff_key("a.test"))
    store.save_backoff("b.test", Backoff(1, EPOCH + 60, "no"))
    assert store.backoff("a.test") is None
    assert list(store.backoffs({}, EPOCH, limit=10)) == ["b.test"]
    store.save_backoff("a.test", Backoff(2, EPOCH + 60, "no"))
    assert store.backoff("a.test") == Backoff(2, EPOCH + 60, "no")


def test_mark_of_a_client_is_written_anew(damaged: Damaged) -> None:
    """Otherwise the name would count as idle for ever."""
    marks = UsageMarks(damaged)
    damaged.damage(usage_key(NAME))
    assert marks.note_used(NAME, EPOCH) is None
    assert marks.get(NAME) == UsageMark(EPOCH, Usage.USED)
    damaged.damage(usage_key(NAME))
    marks.note_obtained(NAME, EPOCH)
    assert marks.get(NAME) == UsageMark(EPOCH, Usage.UNUSED)


def test_node_is_not_listed(damaged: Damaged) -> None:
    """The others are; and it still counts as one that is up, until its key ends."""
    nodes, node = Nodes(damaged), Node("n-1", "control", "1", "host", EPOCH)
    nodes.heartbeat(node, EPOCH)
    damaged.damage(node_key("control", "n-2"))
    assert nodes.list_up() == [node]
    nodes.sign_off(node)
    assert nodes.control_is_up()


def test_entry_of_the_schedule_is_there(damaged: Damaged) -> None:
    """Its minute is in its key, so it is checked then."""
    schedule, minute = RenewalSchedule(damaged), int(EPOCH // 60)
    entry = ScheduledCheck(NAME, minute * 60.0)
    assert not schedule.is_listed(entry)
    damaged.damage(calendar_key(minute, NAME))
    assert schedule.is_listed(entry)
    assert list(schedule.due_by(EPOCH)) == [entry]


def test_window_is_asked_for_anew(damaged: Damaged) -> None:
    """As if the CA had said nothing."""
    damaged.damage(renewal_info_key(NAME))
    assert RenewalSchedule(damaged).renewal_info(NAME, "id") is None


def test_walk_begins_anew(damaged: Damaged) -> None:
    """From the first certificate."""
    expired = ExpiredCertificates(damaged)
    damaged.damage(housekeeping_key())
    assert expired.walk() == Walk()


def test_certificate_is_there(damaged: Damaged) -> None:
    """Nothing that belongs to it is removed as that of no certificate."""
    assert not is_any_stored(damaged, (NAME,))
    damaged.damage(certificate_key(NAME))
    assert is_any_stored(damaged, (ServerName("b.test"), NAME))
