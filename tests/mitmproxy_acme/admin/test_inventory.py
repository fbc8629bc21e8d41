"""What is stored, as it is listed: in pages, by state, and kept up to date by events and by walks."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from acme_storage import StorageError, StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.admin import inventory as inventory_module
from mitmproxy_acme.admin.certificate_rows import CertificateRow, SortKey, State
from mitmproxy_acme.admin.inventory import Inventory
from mitmproxy_acme.core.backoff import Backoff
from mitmproxy_acme.core.events import CertificateObtained, ChangedElsewhere
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.usage_marks import UsageMarks
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import EPOCH, AtOnce, Clock, make_certificate, manager_on

_A, _B = ServerName("a.example.test"), ServerName("b.example.test")
_RECORD = make_certificate([_A]).to_record()


@asynccontextmanager
async def _kept(inventory: Inventory) -> AsyncIterator[None]:
    """Keep it in the background, beginning with all that is stored."""
    task = asyncio.get_running_loop().create_task(inventory.run())
    try:
        assert await inventory.loaded(30)
        yield
    finally:
        task.cancel()


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # what it waits for has no event
            await asyncio.sleep(0)


def _hosts(inventory: Inventory, **filters: object) -> list[str]:
    rows, more = inventory.select(size=1_000, **filters)  # type: ignore[arg-type]  # as the test has them
    assert not more
    return [row.id for row in rows]


async def test_search_as_people_write(make_manager: MakeManager, memory: Memory) -> None:
    """A label that is no ASCII is found as DNS has it; what no name can hold finds nothing."""
    name = "xn--bcher-kva.test"
    memory.put(f"certificates/{name}", make_certificate([name]).to_record())
    inventory = Inventory(make_manager())

    async with _kept(inventory):
        for search in ("bücher", "bücher.test", "xn--bch", "bücher.te"):
            assert _hosts(inventory, search=search) == [name]
        assert _hosts(inventory, search="bü☃\0") == []


async def test_states_and_filters(make_manager: MakeManager, memory: Memory, clock: Clock) -> None:
    """Listed by state, by a part of any name, and by what a client accepts; the summary counts the same."""
    ages = {"valid": 1, "due": 55, "expiring": 70, "expired": 91}
    for host, age in ages.items():
        held = make_certificate([f"{host}.test", f"www.{host}.test"], now=EPOCH - age * DAY)
        memory.put(f"certificates/{host}.test", held.to_record())
    idle = make_certificate(["idle.test"], now=EPOCH - 80 * DAY)
    memory.put("certificates/idle.test", idle.to_record())
    UsageMarks(memory).note_obtained(idle.id, idle.begun)
    assert UsageMarks(memory).pass_over(idle.id, idle.begun, idle.not_after)
    memory.put("certificates/broken.test", b"{")
    key = "certificates/sealed.test"
    memory.put(key, RecordCipher([Fernet.generate_key().decode()]).seal(key, _RECORD))
    inventory = Inventory(make_manager(acme_renew_before="40d"))

    async with _kept(inventory):
        assert _hosts(inventory) == sorted(
            [*(f"{host}.test" for host in ages), "broken.test", "idle.test", "sealed.test"]
        )
        assert _hosts(inventory, search="www.due") == ["due.test"]
        assert _hosts(inventory, search="ale") == ["sealed.test"]
        unreadable = ["broken.test", "sealed.test"]
        assert {state: _hosts(inventory, states=[state]) for state in State} == {
            **{State(host): [f"{host}.test"] for host in ages},
            State.IDLE: ["idle.test"],
            State.UNREADABLE: unreadable,
        }
        assert _hosts(inventory, invalid_only=True) == ["broken.test", "expired.test", "sealed.test"]
        summary = inventory.summary()

    assert summary.counts == dict.fromkeys(State, 1) | {State.UNREADABLE: 2}
    assert summary.total == 7
    assert summary.soonest_expiry == EPOCH + 20 * DAY


async def test_pages_of_what_expires_first(make_manager: MakeManager, memory: Memory) -> None:
    """Whatever their names; those of one moment by name; what cannot be read last; and each in one page only."""
    ages = {"c.test": 91, "d.test": 80, "a.test": 80, "b.test": 1}
    for host, age in ages.items():
        memory.put(f"certificates/{host}", make_certificate([host], now=EPOCH - age * DAY).to_record())
    memory.put("certificates/broken.test", b"{")
    inventory = Inventory(make_manager())
    async with _kept(inventory):
        seen, after, more = list[CertificateRow](), "", True
        while more:
            rows, more = inventory.select(order=SortKey.EXPIRY, after=after, size=2)
            seen += rows
            after = rows[-1].sort_value(SortKey.EXPIRY)
        assert [row.id for row in seen] == ["c.test", "a.test", "d.test", "b.test", "broken.test"]
        assert inventory.select(order=SortKey.EXPIRY, search="b", size=9)[0] == [seen[3], seen[4]]


async def test_summary_ages_with_time(make_manager: MakeManager, memory: Memory, clock: Clock) -> None:
    """What was counted is counted again after some seconds, though nothing was stored."""
    memory.put(f"certificates/{_A}", _RECORD)
    inventory = Inventory(make_manager())
    async with _kept(inventory):
        assert inventory.summary().counts[State.VALID] == 1
        clock.advance(91 * DAY)
        assert inventory.summary().counts[State.EXPIRED] == 1


async def test_events_refresh_rows(make_manager: MakeManager, memory: Memory) -> None:
    """What this node obtains or deletes, and what others changed, is read at once: no walk is waited for."""
    manager = make_manager()
    inventory = Inventory(manager)
    async with _kept(inventory):
        await manager.obtain(Subject((_A,)))
        await _until(lambda: _hosts(inventory) == [_A])
        revision = inventory.revision

        memory.put(f"certificates/{_B}", make_certificate([_B]).to_record())
        manager.events.publish(ChangedElsewhere(frozenset({_B})))
        await _until(lambda: _hosts(inventory) == [_A, _B])
        assert inventory.revision > revision

        await manager.delete(_A)
        await _until(lambda: _hosts(inventory) == [_B])


async def test_change_during_a_read_is_read_again(make_manager: MakeManager, memory: Memory) -> None:
    """An event that comes while the same row is being read is not lost."""
    manager = make_manager()
    inventory = Inventory(manager)
    async with _kept(inventory):
        read, news = manager.store.slot, ChangedElsewhere(frozenset({_A}))
        begun = 0

        def slot(id: ServerName) -> object:
            nonlocal begun
            found, begun = read(id), begun + 1
            if begun == 1:  # another node stores it behind our back, and we hear of it before this read ends
                memory.put(f"certificates/{_A}", _RECORD)
                loop.call_soon_threadsafe(manager.events.publish, news)
            return found

        loop = asyncio.get_running_loop()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(manager.store, "slot", slot)
            manager.events.publish(news)
            await _until(lambda: _hosts(inventory) == [_A])

    assert begun == 2


async def test_walk_drops_what_is_gone(make_manager: MakeManager, memory: Memory) -> None:
    """The next complete reading finds changes without an event: new rows, and rows that are gone."""
    memory.put(f"certificates/{_A}", _RECORD)
    inventory = Inventory(make_manager())
    async with _kept(inventory):
        memory.delete(f"certificates/{_A}")
        memory.put(f"certificates/{_B}", make_certificate([_B]).to_record())

        await inventory._read_all()

        assert _hosts(inventory) == [_B]


async def test_failures_of_this_node_and_of_others(make_manager: MakeManager, memory: Memory, clock: Clock) -> None:
    """Both are returned until they end, or until a certificate is obtained."""
    manager, other = make_manager(), make_manager()
    memory.put(f"certificates/{_A}", _RECORD)
    other.store.save_backoff(_A, Backoff(1, clock() + 60, "theirs"))
    other.store.save_backoff(_B, Backoff(2, clock() + 30, "theirs"))
    inventory = Inventory(manager)
    async with _kept(inventory):
        await _until(lambda: set(inventory.failures()) == {_A, _B})
        held = make_certificate([_A])
        manager.events.publish(CertificateObtained(Subject((_A,)), held, "ca", 1.0, renewal=True, node="n"))
        assert set(inventory.failures()) == {_B}
        clock.advance(31)
        assert inventory.failures() == {}


async def test_failure_of_a_name_is_one_of_both_kinds_of_keys(make_manager: MakeManager, clock: Clock) -> None:
    """Both certificates show it until either is obtained."""
    manager, of_rsa = make_manager(), Subject((_A,), key_type="rsa-2048", mark="+rsa")
    manager.store.save_backoff(_A, Backoff(1, clock() + 60, "no"))
    inventory = Inventory(manager)
    await inventory.read_failures()
    assert [inventory.failure_of(id) is not None for id in (_A, of_rsa.id)] == [True, True]
    held = make_certificate([_A])
    manager.events.publish(CertificateObtained(of_rsa, held, "ca", 1.0, renewal=True, node="n"))
    assert [inventory.failure_of(id) for id in (_A, of_rsa.id)] == [None, None]


async def test_storage_that_fails_is_read_again(
    make_manager: MakeManager, memory: Memory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither an outage nor a fault of ours ends the reading."""
    memory.put(f"certificates/{_A}", _RECORD)
    monkeypatch.setattr(inventory_module, "_RETRY_AFTER", 0.0)
    manager = make_manager()
    errors: list[Exception] = [StorageUnavailable("away"), RuntimeError("a fault of ours")]
    ids = manager.store.ids

    def failing(*, after: str = "", limit: int) -> list[ServerName]:
        if errors:
            raise errors.pop(0)
        return ids(after=after, limit=limit)

    monkeypatch.setattr(manager.store, "ids", failing)
    inventory = Inventory(manager)
    async with _kept(inventory):
        assert _hosts(inventory) == [_A]
    assert "the inventory could not be read" in caplog.text
    assert manager.health.trouble_now == "away"


async def test_reading_one_row_says_that_storage_is_down(
    make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked for at this moment, so what was known before will not do."""

    def fail(id: ServerName) -> None:
        raise StorageUnavailable("away")

    manager = make_manager()
    monkeypatch.setattr(manager.store, "slot", fail)
    with pytest.raises(StorageError):
        await Inventory(manager).read(_A)


async def test_thousands_of_rows(make_manager: MakeManager, memory: Memory) -> None:
    """All are read, sorted, and found again in pages."""
    for number in range(3_000):
        memory.put(f"certificates/h{number:05}.test", b"{" if number % 100 else _RECORD)
    inventory = Inventory(make_manager())

    async with _kept(inventory):
        assert len(inventory) == inventory.summary().total == 3_000
        rows, more = inventory.select(after="h01234.test", size=3)

    assert [row.id for row in rows] == ["h01235.test", "h01236.test", "h01237.test"]
    assert more


@given(hosts=st.sets(st.from_regex(r"[a-c]{1,3}(\.[a-c]{1,2})?", fullmatch=True)), size=st.integers(1, 5))
def test_pages_cover_everything_exactly_once(hosts: set[str], size: int) -> None:
    """Whatever the names and the size of a page, following the last id of each gives all, sorted."""

    async def collect() -> list[str]:
        memory, seen, more = Memory(), list[str](), True
        for host in hosts:
            memory.put(f"certificates/{host}", b"{")
        inventory = Inventory(manager_on(memory, Clock(), threads=AtOnce()))
        await inventory._read_all()
        while more:
            rows, more = inventory.select(after=seen[-1] if seen else "", size=size)
            assert len(rows) == size or not more
            seen += [row.id for row in rows]
        return seen

    assert asyncio.run(collect()) == sorted(hosts)


async def test_change_that_could_not_be_read_is_read_later(
    make_manager: MakeManager, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage was down at that moment: the page shows the certificate as soon as it is back."""
    manager = make_manager()
    inventory = Inventory(manager)
    await inventory.load()
    memory.put(f"certificates/{_A}", _RECORD)
    manager.events.publish(ChangedElsewhere(frozenset({_A})))

    def down(key: str) -> bytes:
        raise StorageUnavailable("down")

    with monkeypatch.context() as broken:
        broken.setattr(memory, "get", down)
        with pytest.raises(StorageError):
            await inventory._refresh_stale()
    assert _hosts(inventory) == []
    await inventory._refresh_stale()
    assert _hosts(inventory) == [_A]


@pytest.mark.parametrize(("alone", "rests"), [(False, [5.0, 5.0, 5.0]), (True, [0.0, 0.0, 0.0])])
async def test_walk_rests_as_long_as_it_has_worked(
    make_manager: MakeManager, memory: Memory, monkeypatch: pytest.MonkeyPatch, alone: bool, rests: list[float]
) -> None:
    """So that it takes half of a core and of the storage at most; a command that only lists takes all."""
    names = [ServerName(f"n{number}.example.test") for number in range(3)]
    for name in names:
        memory.put(f"certificates/{name}", _RECORD)
    inventory, slept, ticks = Inventory(make_manager()), list[float](), itertools.count(0.0, 5.0)

    async def rest(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(inventory_module, "_PART", 1)
    monkeypatch.setattr(inventory_module, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    monkeypatch.setattr(asyncio, "sleep", rest)
    await inventory._read_all(alone=alone)
    assert slept == rests
    assert set(inventory._rows) == set(names)


async def test_list_that_does_not_come_in_time_is_not_waited_for(make_manager: MakeManager) -> None:
    """Who asks is told that it is not there yet."""
    inventory = Inventory(make_manager())
    assert not await inventory.loaded(0.0)
    await inventory._read_all(alone=True)
    assert await inventory.loaded(5.0)


async def test_certificate_that_is_not_due_is_not_idle(make_manager: MakeManager, memory: Memory) -> None:
    """Though a mark says that it was passed over: the options may have changed since."""
    held = make_certificate([_A])
    memory.put(f"certificates/{_A}", held.to_record())
    UsageMarks(memory).note_obtained(_A, held.begun)
    assert UsageMarks(memory).pass_over(_A, held.begun, held.not_after)
    row = await Inventory(make_manager()).read(_A)
    assert row is not None
    assert row.state(EPOCH) is State.VALID


@pytest.mark.parametrize("error", [StorageUnavailable("down"), RuntimeError("a fault")])
async def test_reading_that_fails_is_tried_again_after_a_rest(
    make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Not at once, all the time."""
    manager, rests = make_manager(), list[float]()
    inventory = Inventory(manager)

    async def fail(*, alone: bool = False) -> None:
        raise error

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        if len(rests) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(inventory, "_read_all", fail)
    monkeypatch.setattr(asyncio, "sleep", rest)
    with pytest.raises(asyncio.CancelledError):
        await inventory.run()
    assert rests == [3.0, 3.0, 3.0]
    assert manager.health.trouble_now == ("down" if isinstance(error, StorageUnavailable) else None)


async def test_revision_grows_with_each_change(make_manager: MakeManager, memory: Memory, clock: Clock) -> None:
    """A follower of the list sees by it that there is something new."""
    manager = make_manager()
    inventory = Inventory(manager)
    await inventory.load()
    seen = [inventory.revision]
    manager.store.save_backoff("b.example.test", Backoff(1, clock() + 60, "no"))
    await inventory.read_failures()
    seen.append(inventory.revision)
    await inventory.read_failures()
    assert inventory.revision == seen[-1]
    memory.put(f"certificates/{_A}", _RECORD)
    await inventory.load()
    seen.append(inventory.revision)
    assert seen == sorted(set(seen))
