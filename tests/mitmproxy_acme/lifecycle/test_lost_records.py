"""A storage that comes back without what it had: what a node holds in memory is stored again, and not ordered."""

from dataclasses import replace
from typing import Any

import pytest

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.errors import RecordRefused
from mitmproxy_acme.core.events import CheckScheduled, Event
from mitmproxy_acme.core.lru_cache import LruCache
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.renewal import DAY, first_check_at
from mitmproxy_acme.core.structured_logging import fields
from mitmproxy_acme.lifecycle.cluster_sync import ClusterSync
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.store.change_feed import READ_EVERY
from mitmproxy_acme.store.keys import calendar_key, certificate_key
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import EPOCH, Clock, Counting, FakeIssuer, make_certificate

NAME, OTHER, MANAGED = (ServerName(f"{label}.example.test") for label in ("a", "b", "m"))


async def served(manager: Manager, name: ServerName = NAME) -> Certificate:
    certificate = await manager.certificate_for(name, on_demand=True)
    assert certificate is not None
    return certificate


async def holding(manager: Manager, *names: ServerName) -> tuple[ClusterSync, list[Certificate]]:
    """Have a node hold these, and know the storage; return its sync, which is due again after ``READ_EVERY``."""
    sync = manager.make_cluster_sync()
    await sync.sync()
    held = [await served(manager, name) for name in names]
    return sync, held


async def read(sync: ClusterSync, clock: Clock) -> None:
    """Let a node read as it does every few seconds."""
    clock.advance(READ_EVERY)
    await sync.sync()


def lose(memory: Memory) -> None:
    """Forget everything, as a Redis without persistence does when it is restarted."""
    for key in memory.keys(""):
        memory.delete(key)


def stored(manager: Manager, name: ServerName) -> Certificate | None:
    return manager.store.slot(name).certificate


@pytest.fixture
def manager(make_manager: MakeManager) -> Manager:
    return make_manager(acme_certificates=(MANAGED,))


async def test_what_is_held_is_stored_again(manager: Manager, memory: Memory, clock: Clock, issuer: FakeIssuer) -> None:
    """With its entry in the renewal schedule, within the seconds between two reads, and without an order."""
    sync, held = await holding(manager, NAME, OTHER)
    await read(sync, clock)
    lose(memory)

    await read(sync, clock)

    for name, certificate in zip((NAME, OTHER), held, strict=True):
        found = stored(manager, name)
        assert found is not None
        assert found.fingerprint == certificate.fingerprint
        at = first_check_at(certificate, manager.config.renew_before)
        assert memory.get(calendar_key(int(at // 60), name)) is not None
    assert len(issuer.orders) == 2


async def test_certificate_of_a_clock_that_was_ahead_is_checked_in_time(
    manager: Manager, memory: Memory, clock: Clock
) -> None:
    """It says that it was obtained in 80 days. The check comes when others would, and not after that."""
    certificate = replace(make_certificate([NAME], now=clock()), obtained=clock() + 80 * DAY)
    memory.put(certificate_key(NAME), certificate.to_record())
    sync, _ = await holding(manager, NAME)
    await read(sync, clock)
    lose(memory)

    await read(sync, clock)

    assert stored(manager, NAME) is not None
    assert NAME in [entry.id for entry in manager.schedule.due_by(clock() + DAY)]


@pytest.mark.parametrize(
    ("names", "words"), [((NAME,), "1 that this node holds is"), ((NAME, OTHER), "2 that this node holds are")]
)
async def test_person_is_told_of_a_loss(
    manager: Manager,
    memory: Memory,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    names: tuple[ServerName, ...],
    words: str,
) -> None:
    """How many certificates were stored again, and by which node; once."""
    sync, _ = await holding(manager, *names)
    await read(sync, clock)
    lose(memory)
    await read(sync, clock)
    await read(sync, clock)
    (line,) = [record for record in caplog.records if "has lost certificates" in record.getMessage()]
    assert line.getMessage() == f"the storage has lost certificates; {words} stored again (node {manager.node.id})"
    assert line.levelname == "WARNING"
    told = fields("certificates_restored", node=manager.node.id, count=len(names))
    assert {name: getattr(line, name) for name in told} == told


async def test_what_is_stored_again_is_checked_for_renewal(manager: Manager, memory: Memory, clock: Clock) -> None:
    """The renewer is told, once for all; and not where nothing was lost."""
    sync, _ = await holding(manager, NAME, OTHER)
    await read(sync, clock)
    told = list[Event]()
    manager.events.subscribe(told.append)
    sync._lost.suspect()
    await read(sync, clock)
    assert told == []
    lose(memory)
    await read(sync, clock)
    assert told == [CheckScheduled(clock())]


async def test_order_does_not_walk_through_what_is_held(
    manager: Manager, issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory may have 10,000 certificates, and the event loop waits for each order that looks for a loss."""
    await served(manager, NAME)

    def walk(cache: LruCache[object, object]) -> list[object]:
        raise AssertionError("all values were copied")

    monkeypatch.setattr(LruCache, "values", walk)
    monkeypatch.setattr(LruCache, "items", walk)
    await served(manager, OTHER)
    assert len(issuer.orders) == 2


async def renewed_and_lost(manager: Manager, memory: Memory, clock: Clock) -> tuple[Certificate, Certificate]:
    """Renew a certificate, and put its predecessor back, as a failover to an older copy does. Return both."""
    first = await served(manager)
    clock.advance(60 * DAY)
    record = memory.get(certificate_key(NAME))
    second = await manager.obtain(Subject((NAME,)), first)
    assert record is not None
    memory.put(certificate_key(NAME), record)
    return first, second


async def test_renewal_that_an_older_copy_lacks_is_stored_again(
    manager: Manager, make_manager: MakeManager, memory: Memory, clock: Clock, issuer: FakeIssuer
) -> None:
    """When the storage is back: over the earlier certificate, and another node that serves that one is told."""
    sync, _ = await holding(manager)
    other = make_manager()
    other_sync, _ = await holding(other)
    first, second = await renewed_and_lost(manager, memory, clock)
    assert (await served(other)).fingerprint == first.fingerprint

    sync._lost.suspect()
    await read(sync, clock)
    await read(other_sync, clock)

    found = stored(manager, NAME)
    assert found is not None
    assert found.fingerprint == second.fingerprint == (await served(other)).fingerprint
    assert len(issuer.orders) == 2


async def test_renewal_that_an_older_copy_lacks_is_not_ordered_by_who_holds_it(
    manager: Manager, memory: Memory, clock: Clock, issuer: FakeIssuer
) -> None:
    """The renewer may find the earlier certificate due before the loss is noticed."""
    first, second = await renewed_and_lost(manager, memory, clock)

    assert (await manager.obtain(Subject((NAME,)), first)).fingerprint == second.fingerprint
    assert len(issuer.orders) == 2


async def test_renewal_is_newer_than_what_was_obtained_in_the_future(
    manager: Manager, memory: Memory, clock: Clock, issuer: FakeIssuer
) -> None:
    """The clock of the node was ahead that obtained the first one (seed 62087 of the simulator)."""
    ahead = replace(make_certificate([NAME], now=clock()), obtained=clock() + 80 * DAY)
    memory.put(certificate_key(NAME), ahead.to_record())
    first = await served(manager)
    clock.advance(61 * DAY)
    second = await manager.obtain(Subject((NAME,)), first)
    memory.put(certificate_key(NAME), ahead.to_record())

    assert (await manager.obtain(Subject((NAME,)), first)).fingerprint == second.fingerprint
    found = stored(manager, NAME)
    assert found is not None
    assert found.fingerprint == second.fingerprint
    assert len(issuer.orders) == 1


async def test_old_certificates_are_not_read_after_each_outage(manager: Manager, memory: Memory, clock: Clock) -> None:
    """A copy lacks the last writes; to read 10,000 certificates after each outage would take a store some seconds."""
    sync, _ = await holding(manager, NAME, OTHER)
    await read(sync, clock)
    clock.advance(DAY)
    await read(sync, clock)
    counting = Counting(memory)
    manager.store.storage = counting

    sync._lost.suspect()
    await read(sync, clock)

    assert dict(counting.calls) == {"keys": 1}


async def test_certificate_that_came_after_a_deletion_is_stored_again(
    manager: Manager, memory: Memory, clock: Clock, issuer: FakeIssuer
) -> None:
    """The deletion, announced for a day, was of the one before it."""
    sync, _ = await holding(manager, NAME)
    await manager.delete(NAME)
    clock.advance(DAY / 2)
    second = await served(manager)
    memory.delete(certificate_key(NAME))

    sync._lost.suspect()
    await read(sync, clock)

    found = stored(manager, NAME)
    assert found is not None
    assert found.fingerprint == second.fingerprint
    assert len(issuer.orders) == 2


async def test_a_loss_is_mended_each_time(manager: Manager, memory: Memory, clock: Clock) -> None:
    """The node leaves another mark after each."""
    sync, _ = await holding(manager, NAME)
    for _ in range(3):
        await read(sync, clock)
        lose(memory)
        await read(sync, clock)
        assert stored(manager, NAME) is not None


async def test_storage_that_lost_one_record_is_mended_when_it_comes_back(
    manager: Manager, memory: Memory, clock: Clock
) -> None:
    """A failover to a copy that is some seconds old loses no mark: the outage is the reason to look."""
    sync, _ = await holding(manager, NAME)
    await read(sync, clock)
    memory.delete(certificate_key(NAME))
    await read(sync, clock)
    assert stored(manager, NAME) is None
    sync._lost.suspect()
    await read(sync, clock)
    assert stored(manager, NAME) is not None


async def test_every_node_notices_a_loss(make_manager: MakeManager, memory: Memory, clock: Clock) -> None:
    """The mark that one leaves after it does not hide it from the others, which hold other certificates."""
    (one, _), (two, _) = await holding(first := make_manager(), NAME), await holding(make_manager(), OTHER)
    for sync in (one, two):
        await read(sync, clock)
    lose(memory)
    for sync in (one, two):
        await read(sync, clock)
    assert stored(first, NAME) is not None
    assert stored(first, OTHER) is not None


async def test_deleted_certificate_is_not_stored_again(
    make_manager: MakeManager, memory: Memory, clock: Clock, issuer: FakeIssuer
) -> None:
    """A node that holds it and looks for losses before it has heard of the deletion leaves it deleted."""
    first, second = make_manager(), make_manager()
    await holding(second, NAME)
    await served(first)
    await first.delete(NAME)
    second._parts.lost.suspect()

    await second._parts.lost.restore()

    assert stored(second, NAME) is None
    assert second.cache.get(NAME) is not None  # it has not heard of it
    await second.obtain(second.config.subject(NAME))  # type: ignore[arg-type]  # it is allowed
    assert len(issuer.orders) == 2


@pytest.mark.parametrize("moment", ["announce", "delete"])
async def test_deletion_under_way_is_not_undone(
    make_manager: MakeManager, memory: Memory, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Another node that looks at any moment of a deletion sees either the record or the announcement."""
    first, second = make_manager(), make_manager()
    await holding(second, NAME)
    await served(first)
    looked = 0
    put, delete = Memory.put, Memory.delete

    def look() -> None:
        nonlocal looked
        looked += 1
        lost = second._parts.lost
        assert not lost._missing(second.cache.held())

    def put_and_look(self: Memory, key: str, value: bytes, *, ttl: float | None = None) -> None:
        put(self, key, value, ttl=ttl)
        if moment == "announce" and key.startswith("changes/"):
            look()

    def delete_and_look(self: Memory, key: str) -> None:
        delete(self, key)
        if moment == "delete" and key.startswith("certificates/"):
            look()

    monkeypatch.setattr(Memory, "put", put_and_look)
    monkeypatch.setattr(Memory, "delete", delete_and_look)
    await first.delete(NAME)
    assert looked


async def test_newer_certificate_is_not_replaced(
    make_manager: MakeManager, memory: Memory, clock: Clock, issuer: FakeIssuer
) -> None:
    """A node that missed a renewal writes nothing over it, and takes it instead."""
    first, second = make_manager(), make_manager()
    sync, (old,) = await holding(second, NAME)
    await served(first)
    await read(sync, clock)
    subject = first.config.subject(NAME)
    assert subject is not None
    new = await first.obtain(subject, replacing=old)
    second._parts.lost.suspect()
    await second._parts.lost.restore()
    found = stored(second, NAME)
    assert found is not None
    assert found.fingerprint == new.fingerprint


async def test_expired_certificate_is_not_stored_again(
    manager: Manager, memory: Memory, clock: Clock, issuer: FakeIssuer
) -> None:
    """Nothing is gained by it."""
    sync, (held,) = await holding(manager, NAME)
    await read(sync, clock)
    lose(memory)
    clock.advance(held.lifetime)
    await read(sync, clock)
    assert stored(manager, NAME) is None


async def test_compromised_certificate_is_not_stored_again(manager: Manager, memory: Memory, clock: Clock) -> None:
    """It waits to be revoked: whatever deleted it, its key must not be served by another node."""
    sync, (held,) = await holding(manager, NAME)
    await read(sync, clock)
    manager.store.save_compromised(held)
    manager.store.delete(NAME)
    sync._lost.suspect()
    await read(sync, clock)
    assert stored(manager, NAME) is None


async def test_order_for_what_is_held_stores_it_again(
    manager: Manager, memory: Memory, clock: Clock, issuer: FakeIssuer
) -> None:
    """A client that asks for the name in the seconds before the loss is noticed."""
    _, (held,) = await holding(manager, MANAGED)
    lose(memory)
    subject = manager.config.subject(MANAGED)
    assert subject is not None

    got = await manager.ensure(subject)

    assert got.fingerprint == held.fingerprint
    assert stored(manager, MANAGED) is not None
    assert len(issuer.orders) == 1


async def test_order_is_needless_where_another_node_was_faster(
    manager: Manager, memory: Memory, clock: Clock, issuer: FakeIssuer
) -> None:
    """It has stored the certificate again between this node's look and its own attempt."""
    _, (held,) = await holding(manager, MANAGED)
    record = memory.get(certificate_key(MANAGED))
    assert record is not None
    lose(memory)
    subject = manager.config.subject(MANAGED)
    assert subject is not None
    absent = manager.store.slot(MANAGED)
    memory.put(certificate_key(MANAGED), record)

    found = await manager._parts.obtainer.lost.find(subject, absent, None)

    assert found is not None
    assert found.fingerprint == held.fingerprint


async def test_renewal_of_what_is_lost_is_ordered(manager: Manager, memory: Memory, issuer: FakeIssuer) -> None:
    """What is held is what is to be replaced."""
    _, (held,) = await holding(manager, NAME)
    lose(memory)
    subject = manager.config.subject(NAME)
    assert subject is not None
    assert (await manager.obtain(subject, replacing=held)).fingerprint != held.fingerprint
    assert len(issuer.orders) == 2


async def test_data_node_stores_nothing(make_manager: MakeManager, memory: Memory, clock: Clock) -> None:
    """It may not have the right to."""
    await served(make_manager())
    data = make_manager(acme_role="data")
    sync, _ = await holding(data, NAME)
    await read(sync, clock)
    assert not [key for key in memory.keys("changes/") if key.startswith("changes/~")]
    lose(memory)
    sync._lost.suspect()
    await read(sync, clock)
    assert stored(data, NAME) is None


async def test_storage_that_cannot_be_written_is_read_all_the_same(
    manager: Manager, memory: Memory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No mark can be left on a full disk; the announcements are read as ever."""

    def fail(*_: object, **__: object) -> None:
        raise StorageUnavailable("the disk is full")

    sync = manager.make_cluster_sync()
    with monkeypatch.context() as full:
        full.setattr(memory, "put", fail)
        await read(sync, clock)
    await read(sync, clock)
    assert [key for key in memory.keys("changes/") if key.startswith("changes/~")]


@pytest.mark.parametrize("is_new", [True, False])
async def test_record_that_this_node_cannot_open_is_not_replaced(
    manager: Manager, memory: Memory, clock: Clock, monkeypatch: pytest.MonkeyPatch, is_new: bool
) -> None:
    """Another node has sealed it, with a key that this one lacks: it is no loss."""
    sync, _ = await holding(manager, NAME)
    if not is_new:
        clock.advance(2 * DAY)
    await read(sync, clock)
    record, written = memory.get(certificate_key(NAME)), list[ServerName]()

    def refuse(id: ServerName) -> None:
        raise RecordRefused("sealed")

    monkeypatch.setattr(manager.store, "slot", refuse)
    monkeypatch.setattr(manager.schedule, "add", lambda entry: written.append(entry.id))
    sync._lost.suspect()
    await read(sync, clock)
    assert (memory.get(certificate_key(NAME)), written) == (record, [])
    memory.delete(certificate_key(NAME))
    sync._lost.suspect()
    await read(sync, clock)
    assert (memory.get(certificate_key(NAME)), written) == (None, [])


async def test_loss_is_looked_for_once(
    manager: Manager, memory: Memory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each outage, and not at each read after it."""
    sync, _ = await holding(manager, NAME)
    await read(sync, clock)
    looks, ids = list[float](), manager.store.ids

    def note(**bounds: Any) -> list[ServerName]:
        looks.append(clock())
        return ids(**bounds)

    monkeypatch.setattr(manager.store, "ids", note)
    await read(sync, clock)
    assert looks == []
    sync._lost.suspect()
    await read(sync, clock)
    seen = len(looks)
    assert seen > 0
    await read(sync, clock)
    assert len(looks) == seen


@pytest.mark.parametrize(
    ("begun", "lifetime", "replaced"),
    [(-DAY, 30 * DAY, True), (-DAY, 200 * DAY, False), (DAY, 30 * DAY, False), (0.0, 30 * DAY, False)],
)
async def test_only_an_earlier_certificate_that_ends_sooner_is_a_loss(
    manager: Manager, memory: Memory, clock: Clock, begun: float, lifetime: float, replaced: bool
) -> None:
    """What another node has stored since is not replaced, nor what lasts longer."""
    sync, (held,) = await holding(manager, NAME)
    other = make_certificate([NAME], now=EPOCH + begun, lifetime=lifetime)
    memory.put(certificate_key(NAME), other.to_record())
    sync._lost.suspect()
    await read(sync, clock)
    found = stored(manager, NAME)
    assert found is not None
    assert found.fingerprint == (held if replaced else other).fingerprint


async def test_only_what_can_be_served_makes_an_order_needless(manager: Manager, memory: Memory, clock: Clock) -> None:
    """Not what is to be replaced, has ended, or was deleted; and not the certificate of another name."""
    _, (held,) = await holding(manager, MANAGED)
    lose(memory)
    lost, subject = manager._parts.obtainer.lost, manager.config.managed[0]
    absent = manager.store.slot(MANAGED)
    assert await lost.find(subject, absent, held) is None
    assert await lost.find(Subject((OTHER,)), absent, None) is None
    clock.time = held.not_after
    assert await lost.find(subject, absent, None) is None
    clock.time = held.not_after - 1
    assert await lost.find(subject, absent, None) is held
    await manager.delete(MANAGED)
    manager.cache.put(subject, held)
    clock.advance(-60)
    assert await lost.find(subject, absent, None) is None
