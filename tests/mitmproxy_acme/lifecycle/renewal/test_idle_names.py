"""What becomes of names that no client asks for, through whole lifetimes, with a clock that is moved."""

import asyncio
import logging
from functools import partial

import pytest

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.admin.certificate_rows import State
from mitmproxy_acme.admin.inventory import Inventory
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.errors import ClientLimited
from mitmproxy_acme.core.events import (
    CertificateExpiring,
    CertificateRemoved,
    ChangedElsewhere,
    CheckScheduled,
    Event,
    IdleChanged,
)
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.lifecycle.client_usage import ClientUsage
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.store.renewal_schedule import ScheduledCheck
from mitmproxy_acme.store.usage_marks import Usage, UsageMark, UsageMarks
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import EPOCH, AtOnce, Clock, Counting, FakeIssuer, make_certificate, manager_on
from tests.mitmproxy_acme.lifecycle.renewal.test_renewer import live

NAME = ServerName("a.example.test")
LIFE = 90 * DAY


@pytest.fixture
def make_manager(make_manager: MakeManager) -> MakeManager:
    """Make managers that check certificates when they are due, not several times a day: years pass quickly."""
    return partial(make_manager, acme_renew_before="30d")


async def visit(manager: Manager, name: ServerName = NAME, *, client: str | None = None) -> None:
    """Do what a handshake does, and what the background does soon after it."""
    certificate = manager.cache.get(name) or await manager.certificate_for(name, on_demand=True, client=client)
    assert certificate is not None
    manager.usage.served[certificate.id] = certificate
    await manager.usage.flush()


async def pass_time(manager: Manager, clock: Clock, seconds: float) -> None:
    """Let the renewer and the notes do their work for so long."""
    renewer, end = manager.make_renewer(), clock() + seconds
    while clock() < end:
        await live(renewer, clock, min(DAY, end - clock()))
        await manager.usage.flush()


async def row_of(manager: Manager, name: ServerName = NAME) -> State | None:
    row = await Inventory(manager).read(name)
    return row.state(manager.now()) if row is not None else None


async def test_name_without_clients_is_renewed_once_and_no_more(
    make_manager: MakeManager,
    issuer: FakeIssuer,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The client that it was ordered for counts; its successor has none, so it expires, without any alarm."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("mitmproxy_acme.lifecycle.cautious_clock._PATIENCE", 0.0)
    manager, heard = make_manager(), list[Event]()
    manager.events.subscribe(heard.append)
    await visit(manager)
    await pass_time(manager, clock, 70 * DAY)
    assert len(issuer.orders) == 2
    second = manager.store.slot(NAME).certificate

    await pass_time(manager, clock, 80 * DAY)
    assert len(issuer.orders) == 2
    assert await row_of(manager) is State.IDLE
    await pass_time(manager, clock, 30 * DAY)
    assert second is not None
    assert clock() > second.not_after
    assert await row_of(manager) is State.IDLE
    assert caplog.text.count("not renewed: no client has asked for it since 2027-03-16") == 1
    assert not [event for event in heard if isinstance(event, CertificateExpiring)]
    summary = Inventory(manager)
    await summary.load()
    assert summary.summary().soonest_expiry is None

    for _ in range(3):
        clock.advance(20 * DAY)
        await manager.make_housekeeper().round(30 * DAY)
    assert await row_of(manager) is None


async def test_name_with_clients_is_renewed_for_ever(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock
) -> None:
    manager = make_manager()
    for _ in range(10):
        await visit(manager)
        await pass_time(manager, clock, 30 * DAY + 60)
    assert len(issuer.orders) == 6
    assert await row_of(manager) is State.VALID


async def test_client_of_an_idle_name_has_it_renewed_at_once(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock
) -> None:
    """It is served the old certificate, which is still valid; the schedule keeps one entry."""
    manager = make_manager()
    await visit(manager)
    await pass_time(manager, clock, 140 * DAY)
    assert await row_of(manager) is State.IDLE

    await visit(manager)
    assert len(issuer.orders) == 2
    await pass_time(manager, clock, 60)
    assert len(issuer.orders) == 3
    assert issuer.replaced[2] is not None
    assert await row_of(manager) is State.VALID
    assert len(list(manager.schedule.due_by(clock() + LIFE))) == 1


async def test_client_of_an_expired_idle_name_is_served_as_for_a_new_name(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock
) -> None:
    """Its order is held, and within the client's limit; for the CA it replaces the old certificate."""
    manager = make_manager(acme_orders_per_client="1/1h")
    await visit(manager, client="192.0.2.1")
    await pass_time(manager, clock, 60 * DAY + LIFE + DAY)
    assert await row_of(manager) is State.IDLE
    await visit(manager, ServerName("b.example.test"), client="192.0.2.1")

    with pytest.raises(ClientLimited):
        await visit(manager, client="192.0.2.1")
    await visit(manager, client="198.51.100.1")

    assert await row_of(manager) is State.VALID
    assert issuer.replaced[-1] is not None


async def test_managed_name_is_renewed_without_clients(
    make_manager: MakeManager, memory: Memory, issuer: FakeIssuer, clock: Clock
) -> None:
    manager = make_manager(acme_certificates=(NAME,))
    await pass_time(manager, clock, 400 * DAY)
    assert len(issuer.orders) >= 6
    assert not memory.keys("usage/")


@pytest.mark.parametrize("options", [{"acme_idle": "off"}, {"acme_on_demand": "off"}])
async def test_renewed_without_clients_by_the_options(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock, options: dict[str, str]
) -> None:
    """Renewed with ``acme_idle=off``, and if no client could have it obtained again."""
    await visit(make_manager())
    await pass_time(make_manager(**options), clock, 400 * DAY)
    assert len(issuer.orders) >= 6


async def test_unknown_usage_is_renewed(
    make_manager: MakeManager, memory: Memory, issuer: FakeIssuer, clock: Clock
) -> None:
    """Of an earlier release, imported, or of a node that was killed: there is no mark, or another certificate's."""
    manager = make_manager()
    await manager.certificate_for(NAME, on_demand=True)
    for mark in (b"", b"junk", b"[]", UsageMark(1.0, Usage.UNUSED).to_record(), b'{"begun": 1, "usage": "lost"}'):
        orders = len(issuer.orders)
        memory.put(f"usage/{NAME}", mark)
        await live(manager.make_renewer(), clock, 65 * DAY)
        assert len(issuer.orders) == orders + 1


async def test_person_counts_as_a_client(make_manager: MakeManager, issuer: FakeIssuer, clock: Clock) -> None:
    """Also one who asks for what is stored already, and through a process of the command line, which ends at once."""
    manager = make_manager()
    await visit(manager)
    await pass_time(manager, clock, 140 * DAY)
    assert await row_of(manager) is State.IDLE

    command = manager_on(manager.store.storage, clock, issuer)
    subject = command.config.subject(NAME)
    assert subject is not None
    await command.issue(subject)
    await command.close()
    await pass_time(manager, clock, 60)
    assert len(issuer.orders) == 3


async def test_each_kind_of_key_counts_for_itself(make_manager: MakeManager, issuer: FakeIssuer, clock: Clock) -> None:
    manager = make_manager(threads=AtOnce(), acme_key_type=("ecdsa-p256", "rsa-2048"))
    rsa = ServerName(f"{NAME}+rsa")
    await visit(manager, rsa)
    for _ in range(8):
        await visit(manager)
        await pass_time(manager, clock, 25 * DAY)
    assert await row_of(manager) is State.VALID
    assert await row_of(manager, rsa) is State.IDLE


async def test_one_mark_per_certificate_and_node(clock: Clock, issuer: FakeIssuer) -> None:
    """A thousand visits on each of two nodes, and after a restart, write one mark; the second node only reads it."""
    memory = Memory(now=clock)
    counting = [Counting(memory), Counting(memory), Counting(memory)]
    first, second, restarted = (manager_on(storage, clock, issuer) for storage in counting)
    await first.certificate_for(NAME, on_demand=True)
    await first.wait_idle()  # the order is also recorded as an event
    for storage in counting:
        storage.calls.clear()
    for manager in (first, second, restarted):
        for _ in range(10):
            for _ in range(100):
                await _serve(manager)
            await manager.usage.flush()
    assert [storage.calls["swap"] for storage in counting] == [1, 0, 0]
    assert [storage.calls["put"] for storage in counting] == [0, 0, 0]
    assert memory.keys("usage/") == [f"usage/{NAME}"]
    for manager in (first, second, restarted):
        await manager.close()


async def _serve(manager: Manager) -> None:
    certificate = manager.cache.get(NAME) or await manager.certificate_for(NAME, on_demand=True)
    assert certificate is not None
    manager.usage.served[certificate.id] = certificate


async def test_usage_at_another_node_counts(make_manager: MakeManager, issuer: FakeIssuer, clock: Clock) -> None:
    """Data nodes note what they serve, and the control node renews it."""
    control, data = make_manager(acme_role="control"), make_manager(acme_role="data")
    await control.certificate_for(NAME, on_demand=True)
    await control.usage.flush()
    for _ in range(4):
        await visit(data)
        await pass_time(control, clock, 65 * DAY)
        await data.cache.reload({NAME})
    assert len(issuer.orders) == 5


async def test_other_nodes_hear_that_a_name_is_idle(make_manager: MakeManager, clock: Clock) -> None:
    first, second, heard = make_manager(), make_manager(), list[Event]()
    second.events.subscribe(heard.append)
    await first.certificate_for(NAME, on_demand=True)
    await first.usage.flush()
    sync = second.make_cluster_sync()
    await sync.sync()
    due = next(iter(first.schedule.due_by(clock() + LIFE))).at

    await live(first.make_renewer(), clock, 60 * DAY + 60)
    await sync._read(clock())

    assert due < clock()
    assert ChangedElsewhere(frozenset({NAME})) in heard
    assert await row_of(second) is State.IDLE


async def test_other_nodes_hear_that_a_client_has_come(make_manager: MakeManager, clock: Clock) -> None:
    """Their lists show it as before; and the renewer of this node is told."""
    first, second, heard, here = make_manager(), make_manager(), list[Event](), list[Event]()
    await visit(first)
    await pass_time(first, clock, 140 * DAY)
    sync = second.make_cluster_sync()
    await sync.sync()
    second.events.subscribe(heard.append)
    first.events.subscribe(here.append)

    await visit(first)
    clock.advance(3)
    await sync.sync()

    assert ChangedElsewhere(frozenset({NAME})) in heard
    assert IdleChanged(NAME, idle=False) in here
    assert [type(event) for event in here].count(CheckScheduled) == 1


class Failing(Memory):
    """Takes no mark while it ``fails``."""

    fails = False

    def swap(self, key: str, old: bytes | None, new: bytes | None, *, ttl: float | None = None) -> bool:
        if self.fails and key.startswith("usage/"):
            raise StorageUnavailable("out of order")
        return super().swap(key, old, new, ttl=ttl)


async def test_notes_wait_for_the_storage(clock: Clock, issuer: FakeIssuer, caplog: pytest.LogCaptureFixture) -> None:
    """They are kept, and written when it is back; one line says so. Meanwhile the name would be renewed."""
    storage = Failing(now=clock)
    manager = manager_on(storage, clock, issuer)
    storage.fails = True
    for _ in range(3):
        await visit(manager)
    assert not storage.keys("usage/")
    assert caplog.text.count("cannot be noted in the storage yet") == 1

    storage.fails = False
    await manager.usage.flush()
    mark = UsageMarks(storage).get(NAME)
    assert mark is not None
    assert mark.usage is Usage.USED
    await manager.close()


async def test_client_at_the_moment_of_the_decision_wins(memory: Memory) -> None:
    """A mark that changes while a certificate is passed over decides: it is renewed."""
    marks = UsageMarks(memory)
    marks.note_obtained(NAME, EPOCH)
    marks.note_used(NAME, EPOCH)
    assert not marks.pass_over(NAME, EPOCH, EPOCH + LIFE)


async def test_late_client_of_the_previous_certificate_counts_for_the_new_one(memory: Memory) -> None:
    """A node that has not heard of the renewal yet served it; the name is in use."""
    marks = UsageMarks(memory)
    marks.note_obtained(NAME, EPOCH + 60 * DAY)
    assert marks.note_used(NAME, EPOCH) is None
    assert marks.get(NAME) == UsageMark(EPOCH + 60 * DAY, Usage.USED)


async def test_mark_goes_with_a_deleted_certificate(make_manager: MakeManager, memory: Memory, clock: Clock) -> None:
    manager = make_manager()
    await visit(manager)
    await manager.delete(NAME)
    assert not memory.keys("usage/")
    await pass_time(manager, clock, 65 * DAY)
    assert not memory.keys("usage/")


async def test_idle_certificates_in_memory_are_read_again_in_bounds(
    make_manager: MakeManager, memory: Memory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A round of the renewer reads at most so many of the overdue ones in memory: those that were used last."""
    monkeypatch.setattr("mitmproxy_acme.lifecycle.cache._MOST_OVERDUE", 3)
    manager = make_manager()
    names = [ServerName(f"n{number}.example.test") for number in range(5)]
    for name in names:
        await manager.certificate_for(name, on_demand=True)
    clock.advance(61 * DAY)
    manager.cache.get(names[0])
    read = list[str]()
    slot = manager.store.slot

    def reading(id: ServerName) -> object:
        read.append(id)
        return slot(id)

    monkeypatch.setattr(manager.store, "slot", reading)
    await manager.cache.refresh()
    assert sorted(read) == [names[0], names[3], names[4]]


async def test_notes_go_on_after_a_fault(
    make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged; what clients asked for is noted in the next round, after a rest."""
    usage, rests, flushes = make_manager().usage, list[float](), list[bool]()

    async def flush() -> None:
        flushes.append(True)
        raise RuntimeError("a fault")

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        if len(rests) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(usage, "flush", flush)
    monkeypatch.setattr(asyncio, "sleep", rest)
    with pytest.raises(asyncio.CancelledError):
        await usage.run()
    assert len(flushes) == 2
    assert min(rests) >= 1
    assert caplog.text.count("which certificates clients asked for could not be noted") == 2


async def test_only_names_that_may_expire_are_idle(make_manager: MakeManager, memory: Memory, clock: Clock) -> None:
    """Neither a managed one, nor any where the options renew all: whatever its mark says."""
    managed = ServerName("m.example.test")
    marks = UsageMarks(memory)
    certificates = [make_certificate([name], now=clock()) for name in (NAME, managed)]
    for certificate in certificates:
        marks.note_obtained(certificate.id, certificate.begun)
        assert marks.pass_over(certificate.id, certificate.begun, clock())
    here = make_manager(acme_certificates=(managed,))
    assert here.config.lets_idle_expire
    assert [here.is_idle(certificate) for certificate in certificates] == [True, False]
    renews_all = make_manager(acme_on_demand="off")
    assert not renews_all.config.lets_idle_expire
    assert [renews_all.is_idle(certificate) for certificate in certificates] == [False, False]


async def test_name_that_is_passed_over_is_announced_and_checked_at_its_end(
    make_manager: MakeManager, memory: Memory, clock: Clock
) -> None:
    """Other nodes show it as idle; and a client in the meantime finds it in the schedule."""
    manager, certificate = make_manager(), make_certificate([NAME], now=clock())
    manager._base.marks.note_obtained(NAME, certificate.begun)
    entry = ScheduledCheck(NAME, clock())
    manager.schedule.add(entry)
    assert await manager.make_renewer()._idle.pass_over(entry, certificate)
    assert [key.rpartition("~")[2] for key in memory.keys("changes/")] == [NAME]
    assert [entry.at for entry in manager.schedule.due_by(clock() + LIFE)] == [certificate.not_after]


async def test_what_was_served_is_noted_once(make_manager: MakeManager, memory: Memory) -> None:
    """Not at each flush again; and a handshake after that counts anew."""
    manager = make_manager()
    await visit(manager)
    assert manager.usage.served == {}
    storage = Counting(memory)
    manager._base.marks._storage = storage
    await manager.usage.flush()
    assert storage.calls == {}


async def test_certificate_that_nobody_was_served_yet_has_a_mark(make_manager: MakeManager, memory: Memory) -> None:
    """Without one it would count as used, and be renewed for ever."""
    manager = make_manager()
    await manager.certificate_for(NAME, on_demand=True)
    await manager.usage.flush()
    mark = UsageMarks(memory).get(NAME)
    assert mark is not None
    assert mark.usage is Usage.UNUSED


async def test_what_the_storage_does_not_take_is_noted_later(
    make_manager: MakeManager, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both that a certificate is new, and that a client asked for one."""
    manager, other = make_manager(), ServerName("b.example.test")
    certificate = await manager.certificate_for(NAME, on_demand=True)
    served = await manager.certificate_for(other, on_demand=True)
    assert certificate is not None
    assert served is not None
    manager.usage.served[other] = served

    def down(*_: object, **__: object) -> bool:
        raise StorageUnavailable("down")

    with monkeypatch.context() as broken:
        broken.setattr(memory, "swap", down)
        await manager.usage.flush()
    await manager.usage.flush()
    marks = [UsageMarks(memory).get(name) for name in (NAME, other)]
    assert [mark.usage for mark in marks if mark is not None] == [Usage.UNUSED, Usage.USED]


async def test_name_that_was_deleted_is_not_noted(make_manager: MakeManager, memory: Memory) -> None:
    """Unless a new certificate has taken its place."""
    manager = make_manager()
    held = await manager.certificate_for(NAME, on_demand=True)
    assert held is not None
    manager.usage.served[NAME] = held
    manager.events.publish(CertificateRemoved(NAME, "keyCompromise", "n", replaced=True))
    assert NAME in manager.usage.served
    manager.events.publish(CertificateRemoved(NAME, None, "n"))
    await manager.usage.flush()
    assert memory.keys("usage/") == []


async def test_other_nodes_hear_of_a_client_when_the_check_has_its_new_time(
    make_manager: MakeManager, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who reads the schedule because of the announcement finds the name due now, and once."""
    manager, found = make_manager(), list[list[ServerName]]()
    await visit(manager)
    await pass_time(manager, clock, 140 * DAY)
    announce = manager.usage._changes.announce

    def announcing(id: ServerName, now: float) -> None:
        found.append([entry.id for entry in manager.schedule.due_by(now)])
        announce(id, now)

    monkeypatch.setattr(manager.usage._changes, "announce", announcing)
    await visit(manager)
    assert found == [[NAME]]


async def test_new_certificate_that_was_served_at_once_costs_one_mark(
    make_manager: MakeManager, memory: Memory
) -> None:
    """That a client was served it says all: that none had been yet is not written before."""
    manager = make_manager()
    certificate = await manager.certificate_for(NAME, on_demand=True)
    assert certificate is not None
    manager.usage.served[NAME] = certificate
    storage = Counting(memory)
    manager._base.marks._storage = storage
    await manager.usage.flush()
    assert storage.calls["swap"] == 1


class Served(Memory):
    """Knows what ``usage`` has noted when it deletes a mark."""

    usage: ClientUsage | None = None
    noted: list[dict[ServerName, Certificate]]

    def delete(self, key: str) -> None:
        if self.usage is not None and key.startswith("usage/"):
            self.noted.append(dict(self.usage.served))
        super().delete(key)


async def test_deleted_name_whose_client_has_just_come_is_not_marked_again(clock: Clock, issuer: FakeIssuer) -> None:
    """The notes in memory end before the mark: a flush in between would bring it back."""
    storage = Served(now=clock)
    manager = manager_on(storage, clock, issuer)
    await visit(manager)
    certificate = manager.cache.get(NAME)
    assert certificate is not None
    manager.usage.served[NAME] = certificate
    storage.usage, storage.noted = manager.usage, []
    await manager.delete(NAME)
    assert storage.noted == [{}]
    await manager.close()
