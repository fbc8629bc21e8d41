"""What is stored for a name, read once for all who ask, and what is scheduled because of it."""

import asyncio
from typing import Any

import pytest

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.core.errors import BackingOff
from mitmproxy_acme.core.events import CheckScheduled, Event
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.lifecycle.certificate_lookup import CertificateLookup
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import EPOCH, UNSEALED, Clock, make_certificate

A = ServerName("a.example.test")
SUBJECT = Subject((A,))


def lookup_of(manager: Manager) -> CertificateLookup:
    return manager._parts.lookup


def store(memory: Memory, **how: Any) -> None:
    view = Store(memory, UNSEALED)
    assert view.replace(view.slot(A), make_certificate([A], **how))


def count_reads(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the ids whose records are read."""
    read, slot = list[str](), manager.store.slot

    def note(id: ServerName) -> Any:
        read.append(id)
        return slot(id)

    monkeypatch.setattr(manager.store, "slot", note)
    return read


async def test_all_who_ask_share_one_read(
    make_manager: MakeManager, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = make_manager()
    store(memory)
    read = count_reads(manager, monkeypatch)
    found = await asyncio.gather(*(lookup_of(manager).find(SUBJECT) for _ in range(10)))
    assert (read, len({id(one.certificate) for one in found})) == ([A], 1)
    await lookup_of(manager).find(SUBJECT)
    assert read == [A, A]


@pytest.mark.parametrize(
    ("age", "options", "certificate", "known", "scheduled"),
    [
        (0, {}, True, True, False),
        (59, {}, True, True, False),
        (60, {}, True, True, True),
        (79, {"acme_renew_before": "10d"}, True, True, False),
        (80, {"acme_renew_before": "10d"}, True, True, True),
        (89.9, {}, True, True, True),
        (90, {}, False, True, False),
        (90, {"acme_idle": "off"}, False, True, False),
        (90, {"acme_certificates": (A,)}, False, True, False),
    ],
)
async def test_what_is_due_is_scheduled_and_what_has_expired_is_none(
    make_manager: MakeManager,
    memory: Memory,
    clock: Clock,
    age: float,
    options: dict[str, Any],
    certificate: bool,
    known: bool,
    scheduled: bool,
) -> None:
    """The schedule may not list it after a kill, or an import; the renewer is told at once."""
    manager, heard = make_manager(**options), list[Event]()
    manager.events.subscribe(heard.append)
    store(memory)
    clock.advance(age * DAY)
    found = await lookup_of(manager).find(manager.config.subject(A) or SUBJECT)
    assert (found.certificate is not None, found.known) == (certificate, known)
    assert [check.id for check in manager.schedule.due_by(clock())] == ([A] if scheduled else [])
    assert heard == ([CheckScheduled(clock())] if scheduled else [])


@pytest.mark.parametrize(
    ("options", "age", "known"),
    [({}, 90, False), ({}, 89.9, True), ({"acme_idle": "off"}, 90, True), ({"acme_on_demand": "off"}, 90, True)],
)
async def test_expired_certificate_that_no_client_wanted_counts_as_new(
    make_manager: MakeManager, memory: Memory, clock: Clock, options: dict[str, Any], age: float, known: bool
) -> None:
    """Where the options let idle names expire: its order is within the limits of visitors."""
    manager = make_manager(**options)
    store(memory)
    marks = manager._parts.lookup.marks
    marks.note_obtained(A, EPOCH)
    assert marks.pass_over(A, EPOCH, EPOCH)
    clock.advance(age * DAY)
    assert (await lookup_of(manager).find(SUBJECT)).known is known


async def test_record_that_is_broken_is_known(make_manager: MakeManager, memory: Memory) -> None:
    """It is the operator's own name; nothing is stored for another."""
    manager = make_manager()
    assert not (await lookup_of(manager).find(SUBJECT)).known
    memory.put(f"certificates/{A}", b"broken")
    found = await lookup_of(manager).find(SUBJECT)
    assert (found.certificate, found.known) == (None, True)


async def test_few_names_of_visitors_are_read_at_once(
    make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are listed are read all the same."""
    monkeypatch.setattr("mitmproxy_acme.lifecycle.certificate_lookup._MOST_LOOKUPS", 2)
    manager = make_manager(acme_certificates=("listed.example.test",))
    lookup = lookup_of(manager)
    names = [Subject((ServerName(f"{letter}.example.test"),)) for letter in "xy"]
    reading = [asyncio.ensure_future(lookup.find(name)) for name in names[:1]]
    await asyncio.sleep(0)
    lookup.require_room(SUBJECT)
    reading.append(asyncio.ensure_future(lookup.find(names[1])))
    await asyncio.sleep(0)
    with pytest.raises(BackingOff, match="2 names are being looked up already") as refused:
        lookup.require_room(SUBJECT)
    assert refused.value.until == EPOCH
    lookup.require_room(manager.config.managed[0])
    await asyncio.gather(*reading)
    lookup.require_room(SUBJECT)


async def test_fruitless_lookups_of_visitors_are_counted(
    make_manager: MakeManager, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not those that find something, and not those of listed names."""
    manager = make_manager(acme_certificates=("listed.example.test",))
    counted = list[bool]()
    monkeypatch.setattr(manager._parts.lookup.admission, "count_fruitless", lambda: counted.append(True))
    store(memory)
    await lookup_of(manager).find_for_visitor(SUBJECT)
    await lookup_of(manager).find_for_visitor(manager.config.managed[0])
    assert counted == []
    await lookup_of(manager).find_for_visitor(Subject((ServerName("b.example.test"),)))
    assert counted == [True]


async def test_lookup_under_way_is_waited_for_whatever_becomes_of_it(
    make_manager: MakeManager, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is raised; where none is under way nothing is waited for."""
    lookup = lookup_of(make_manager())
    await lookup.wait_for(A)

    def fail(_: str) -> None:
        raise StorageUnavailable("down")

    monkeypatch.setattr(memory, "get", fail)
    finding = asyncio.ensure_future(lookup.find(SUBJECT))
    await asyncio.sleep(0)
    await lookup.wait_for(A)
    with pytest.raises(StorageUnavailable):
        await finding
    await lookup.wait_idle()
