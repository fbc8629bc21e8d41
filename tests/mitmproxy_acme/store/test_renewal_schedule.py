"""The calendar and the change feed, with what others wrote there in them."""

from dataclasses import replace

import pytest

from acme_storage.memory import Memory
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.core.renewal import LAST_TIME, RenewalInfo
from mitmproxy_acme.store.change_feed import ChangeFeed
from mitmproxy_acme.store.keys import calendar_key, renewal_info_key
from mitmproxy_acme.store.renewal_schedule import RenewalSchedule, ScheduledCheck
from tests.mitmproxy_acme.fakes import EPOCH, Clock

_A, _B = ServerName("a.example.test"), ServerName("b.example.test")
_MINUTE = int(EPOCH // 60)


@pytest.mark.parametrize("value", [b"inf", b"-inf", b"nan", b"1e300", b"soon", b""])
def test_minute_of_an_entry_is_believed(memory: Memory, value: bytes) -> None:
    """Whatever time its value has: a time that never comes would mean no check."""
    memory.put(calendar_key(_MINUTE, _A), value)
    assert list(RenewalSchedule(memory).due_by(EPOCH)) == [ScheduledCheck(_A, _MINUTE * 60.0)]


@pytest.mark.parametrize("key", ["calendar/x", "calendar/00000001/5", "calendar/00000001/5~", "calendar/zz/zz~x"])
def test_entry_of_nobody_is_left_out(memory: Memory, key: str) -> None:
    """The other entries are still checked."""
    calendar = RenewalSchedule(memory)
    memory.put(key, b"")
    calendar.add(ScheduledCheck(_A, EPOCH))
    assert list(calendar.due_by(EPOCH)) == [ScheduledCheck(_A, EPOCH)]


@pytest.mark.parametrize("field", ["start", "end", "ask_again"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "null", '"soon"', "1" + "0" * 400])
def test_absurd_window_counts_as_none(memory: Memory, field: str, value: str) -> None:
    """The CA is asked again, instead of never."""
    times = {"start": "1.0", "end": "2.0", "ask_again": "3.0"} | {field: value}
    info = ", ".join(f'"{name}": {time}' for name, time in times.items())
    memory.put(renewal_info_key(_A), f'{{"id": "x", "info": {{{info}}}}}'.encode())
    assert RenewalSchedule(memory).renewal_info(_A, "x") is None


_WINDOW = RenewalInfo(EPOCH, EPOCH + 60, EPOCH + 30, "https://ca.test/why")


@pytest.mark.parametrize("window", [_WINDOW, replace(_WINDOW, end=EPOCH), replace(_WINDOW, start=0.0)])
def test_window_is_kept_for_one_certificate(memory: Memory, window: RenewalInfo) -> None:
    """Not for its successor; it goes with the certificate."""
    calendar, entry = RenewalSchedule(memory), ScheduledCheck(_A, EPOCH)
    calendar.add(entry)
    calendar.save_renewal_info(_A, "serial", window)
    assert calendar.renewal_info(_A, "serial") == window
    assert [calendar.renewal_info(id, of) for id, of in ((_A, "other"), (_A, None), (_B, "serial"))] == [None] * 3
    calendar.forget(entry)
    assert memory.keys("") == []


@pytest.mark.parametrize(
    "window",
    [
        replace(_WINDOW, start=EPOCH + 61),
        replace(_WINDOW, explanation_url="https://ca.test/\n"),
        replace(_WINDOW, start=-1.0),
        replace(_WINDOW, end=LAST_TIME + 1),
        replace(_WINDOW, ask_again=-1.0),
    ],
)
def test_window_that_no_ca_can_have_said_counts_as_none(memory: Memory, window: RenewalInfo) -> None:
    calendar = RenewalSchedule(memory)
    calendar.save_renewal_info(_A, "serial", window)
    assert calendar.renewal_info(_A, "serial") is None


@pytest.mark.parametrize(
    "record",
    [b"", b"{", b"\xff", b"[]", b"1", b"{}", b'{"id": "serial"}', b'{"id": "serial", "info": 1}', b"[" * 60_000],
)
def test_window_of_any_shape_counts_as_none(memory: Memory, record: bytes) -> None:
    memory.put(renewal_info_key(_A), record)
    assert RenewalSchedule(memory).renewal_info(_A, "serial") is None


def test_entries_up_to_a_minute_are_due(memory: Memory) -> None:
    """Those of later minutes are not; the same minute twice is one entry, and an entry that is removed is none."""
    calendar = RenewalSchedule(memory)
    entries = [ScheduledCheck(ServerName(f"n{after}.test"), EPOCH + after) for after in (0, 59, 60, 120)]
    for entry in entries:
        calendar.add(entry)
    calendar.add(replace(entries[0], at=EPOCH + 1))
    entries[0] = replace(entries[0], at=EPOCH + 1)
    assert list(calendar.due_by(EPOCH)) == entries[:2]
    assert list(calendar.due_by(EPOCH + 60)) == entries[:3]
    assert list(calendar.due_by(EPOCH + 60, after=entries[0].key)) == entries[1:3]
    assert [calendar.is_listed(entry) for entry in entries] == [True] * 4
    calendar.remove(entries[1])
    assert not calendar.is_listed(entries[1])


@pytest.mark.parametrize(("over_by", "at"), [(EPOCH + 59, EPOCH + 30), (EPOCH + 60, EPOCH)])
def test_entry_of_a_minute_that_is_over_is_not_read(memory: Memory, over_by: float, at: float) -> None:
    """A backlog costs its listing, and no read for each."""
    calendar = RenewalSchedule(memory)
    calendar.add(ScheduledCheck(_A, EPOCH + 30))
    assert list(calendar.due_by(EPOCH, over_by=over_by)) == [ScheduledCheck(_A, at)]


def test_all_pages_are_listed(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mitmproxy_acme.store.renewal_schedule._PAGE", 2)
    calendar = RenewalSchedule(memory)
    entries = [ScheduledCheck(ServerName(f"n{number}.test"), EPOCH) for number in range(5)]
    for entry in entries:
        calendar.add(entry)
    assert list(calendar.due_by(EPOCH)) == entries


@pytest.mark.parametrize("key", ["changes/x", "changes/9", "changes/1800000000000.1~node"])
def test_announcement_of_nobody_keeps_no_other_from_being_heard(memory: Memory, clock: Clock, key: str) -> None:
    """The feed goes on."""
    memory.put(key, b"")
    ChangeFeed(memory, "other").announce(_B, clock())
    assert ChangeFeed(memory, "this").read_new(clock(), all=True) == [_B]


def test_moved_entry_is_listed_at_every_moment(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is listed anew before the old entry goes: a kill between the two leaves it listed twice, and never not."""
    calendar, delete = RenewalSchedule(memory), memory.delete
    entry, later = ScheduledCheck(_A, EPOCH), ScheduledCheck(_A, EPOCH + 3_600)
    calendar.add(entry)
    seen: list[list[ScheduledCheck]] = []

    def note(key: str) -> None:
        seen.append(list(calendar.due_by(EPOCH + 7_200)))
        delete(key)

    monkeypatch.setattr(memory, "delete", note)
    calendar.move(entry, later.at)
    assert seen == [[entry, later]]
    assert list(calendar.due_by(EPOCH + 7_200)) == [later]
