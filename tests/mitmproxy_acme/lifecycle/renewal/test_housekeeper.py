"""What is removed long after it expired, what never is, and what a pass costs; with a clock that is moved."""

import asyncio
import logging
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from acme_storage import Storage, StorageUnavailable, open_storage
from acme_storage.memory import Memory
from mitmproxy_acme.admin.inventory import Inventory
from mitmproxy_acme.core.backoff import Backoff
from mitmproxy_acme.core.errors import ChallengeFailed
from mitmproxy_acme.core.events import CertificateRemoved, Event, ExpiredRemoved
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.renewal import DAY, RenewalInfo
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.expired_certificates import ExpiredCertificate, ExpiredCertificates, Walk
from mitmproxy_acme.store.keys import HOUSEKEEPING_SCOPE, name_scope
from mitmproxy_acme.store.lease import Lease
from mitmproxy_acme.store.store import Slot, Store
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import DIRECTORY, EPOCH, UNSEALED, AtOnce, Clock, Counting, FakeIssuer, make_certificate
from tests.mitmproxy_acme.fakes import manager_on as manager_at
from tests.mitmproxy_acme.lifecycle.renewal.test_renewer import live
from tests.servers.binaries import need
from tests.servers.stores import running

NAME = ServerName("a.example.test")
OTHER = ServerName("b.example.test")
SUBJECT = Subject((NAME,))
KEEP = 30 * DAY
LIFE = 90 * DAY


@pytest.fixture(autouse=True)
def trusted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests set the clock as they need it: it counts at once."""
    if "monotonic" not in request.fixturenames:
        monkeypatch.setattr("mitmproxy_acme.lifecycle.cautious_clock._PATIENCE", 0.0)


@pytest.fixture
def monotonic() -> Clock:
    """The time that is never set, for tests of a clock that is wrong."""
    return Clock(7.0)


async def keep_house(manager: Manager, passes: int = 1) -> None:
    for _ in range(passes):
        await manager.make_housekeeper().round(KEEP)


async def expire(manager: Manager, issuer: FakeIssuer, clock: Clock, name: ServerName = NAME) -> None:
    """Obtain a certificate, and let it expire because its renewals fail, until the renewer gives it up."""
    await manager.certificate_for(name, on_demand=True)
    issuer.error = ChallengeFailed("its DNS records have gone")
    await live(manager.make_renewer(), clock, LIFE + 3 * DAY)


def stored_keys(storage: Storage) -> list[str]:
    """Return what is stored, except what belongs to no name."""
    of_no_name = ("housekeeping/", "budgets/", "nodes/", "changes/", "events/")
    return [key for key in storage.keys("") if not key.startswith(of_no_name)]


def store_old(storage: Storage, name: str, *, ended: float, cipher: RecordCipher = UNSEALED) -> None:
    """Store a certificate that ended at ``ended``, without any entry: as an earlier release left it."""
    store, certificate = Store(storage, cipher), make_certificate([name], now=ended - LIFE)
    assert store.replace(Slot(None, None), certificate)


async def test_expired_name_goes_with_all_that_belongs_to_it(
    make_manager: MakeManager, memory: Memory, issuer: FakeIssuer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """It stays for 30 days after its end; then its record, window, backoffs and entries go, which one line says."""
    caplog.set_level(logging.INFO)
    manager, heard = make_manager(threads=AtOnce()), list[Event]()
    manager.events.subscribe(heard.append)
    await expire(manager, issuer, clock)
    manager.schedule.save_renewal_info(NAME, "an id", RenewalInfo(0.0, 1.0, 2.0))
    manager.store.save_backoff(name_scope(NAME, DIRECTORY), Backoff(1, clock() - 1, "over"), ttl=90 * DAY)
    manager.store.save_backoff(NAME, Backoff(1, clock() - 1, "over"), ttl=90 * DAY)
    entries = [key for key in stored_keys(memory) if key.startswith(("calendar/", "expired/"))]
    assert [key.partition("/")[0] for key in entries] == ["expired"]

    clock.time = EPOCH + LIFE + KEEP - 60
    await keep_house(manager)
    assert manager.store.slot(NAME).certificate is not None

    clock.advance(120)
    await keep_house(manager)
    assert stored_keys(memory) == []
    assert "removed 1 certificate that expired more than 30 days ago" in caplog.text
    assert [event for event in heard if isinstance(event, ExpiredRemoved)] == [
        ExpiredRemoved(frozenset({NAME}), manager.node.id)
    ]
    assert not [event for event in heard if isinstance(event, CertificateRemoved)]


async def test_active_backoff_stays(
    make_manager: MakeManager, memory: Memory, issuer: FakeIssuer, clock: Clock
) -> None:
    """A client that asks for a name again and again does not bring it to the CA because it was removed."""
    manager = make_manager(threads=AtOnce())
    await expire(manager, issuer, clock)
    clock.time = EPOCH + LIFE + KEEP + 60
    manager.store.save_backoff(NAME, Backoff(9, clock() + DAY, "its DNS records have gone"))

    await keep_house(manager)

    assert stored_keys(memory) == [f"backoffs/{NAME}"]


async def test_backoff_of_a_name_with_the_other_kind_of_key_stays(
    make_manager: MakeManager, memory: Memory, clock: Clock
) -> None:
    """Both certificates of a name share its backoffs."""
    manager, rsa = make_manager(acme_key_type=("ecdsa-p256", "rsa-2048")), ServerName(f"{NAME}+rsa")
    for id, ended in ((NAME, EPOCH - KEEP - 60), (rsa, EPOCH + LIFE)):
        store_old(memory, id, ended=ended)
    manager.store.save_backoff(NAME, Backoff(3, EPOCH - 1, "over"))
    ExpiredCertificates(memory).add(ExpiredCertificate(NAME, EPOCH - KEEP - 60))

    await keep_house(manager)

    assert stored_keys(memory) == [f"backoffs/{NAME}", f"certificates/{rsa}"]


async def test_managed_certificate_is_never_removed(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock
) -> None:
    """It is tried for as long as it is listed: a year after its end it is renewed when its CA can."""
    manager = make_manager(threads=AtOnce(), acme_certificates=(NAME,))
    renewer = manager.make_renewer()
    await expire(manager, issuer, clock)
    for _ in range(12):
        await live(renewer, clock, 30 * DAY)
        await keep_house(manager)
    assert manager.store.slot(NAME).certificate is not None

    issuer.error = None
    await live(renewer, clock, 2 * DAY)
    certificate = manager.store.slot(NAME).certificate
    assert certificate is not None
    assert certificate.not_after > clock()


async def test_listed_name_that_became_managed_is_checked_again(
    make_manager: MakeManager, memory: Memory, clock: Clock
) -> None:
    """A name that the options list now is not removed though it was given up before."""
    store_old(memory, NAME, ended=EPOCH - KEEP - 60)
    ExpiredCertificates(memory).add(ExpiredCertificate(NAME, EPOCH - KEEP - 60))
    manager = make_manager(acme_certificates=(NAME,))

    await keep_house(manager)

    assert manager.store.slot(NAME).certificate is not None
    assert [entry.id for entry in manager.schedule.due_by(clock())] == [NAME]
    assert not memory.keys("expired/")


class Racing(Memory):
    """Stores another certificate under the name just before the first removal."""

    other: bytes | None = None

    def swap(self, key: str, old: bytes | None, new: bytes | None, *, ttl: float | None = None) -> bool:
        if new is None and self.other is not None and key.startswith("certificates/"):
            self.put(key, self.other)
            self.other = None
        return super().swap(key, old, new, ttl=ttl)


async def test_certificate_that_another_node_has_just_renewed_stays(clock: Clock) -> None:
    """It comes between reading and removing: the removal does not happen, nor at the next pass."""
    storage = Racing(now=clock)
    store_old(storage, NAME, ended=EPOCH - KEEP - 60)
    ExpiredCertificates(storage).add(ExpiredCertificate(NAME, EPOCH - KEEP - 60))
    manager = manager_at(storage, clock)
    new = make_certificate([NAME])
    storage.other = new.to_record()

    await keep_house(manager, passes=2)

    kept = manager.store.slot(NAME).certificate
    assert kept is not None
    assert kept.fingerprint == new.fingerprint
    assert not storage.keys("expired/")
    await manager.close()


async def test_certificate_that_expired_again_is_kept_for_its_own_time(
    make_manager: MakeManager, memory: Memory
) -> None:
    """An entry of an earlier certificate does not remove a later one before its time."""
    store_old(memory, NAME, ended=EPOCH - 10 * DAY)
    ExpiredCertificates(memory).add(ExpiredCertificate(NAME, EPOCH - KEEP - 60))
    manager = make_manager()

    await keep_house(manager)

    assert manager.store.slot(NAME).certificate is not None
    assert [entry.ended for entry in ExpiredCertificates(memory).ended_by(EPOCH, limit=9)] == [EPOCH - 10 * DAY]


async def test_another_kept_time_takes_effect_at_once(make_manager: MakeManager, memory: Memory) -> None:
    """What was listed under one value of the option goes by the next one."""
    store_old(memory, NAME, ended=EPOCH - 10 * DAY)
    ExpiredCertificates(memory).add(ExpiredCertificate(NAME, EPOCH - 10 * DAY))
    manager = make_manager(acme_keep_expired="7d")
    assert manager.config.keep_expired == 7 * DAY

    await manager.make_housekeeper().round(7 * DAY)

    assert stored_keys(memory) == []


async def test_off_ends_at_once(make_manager: MakeManager) -> None:
    """With ``acme_keep_expired=off`` nothing is read or removed, ever."""
    await asyncio.wait_for(make_manager(acme_keep_expired="off").make_housekeeper().run(), 5)


async def test_records_that_no_key_opens_stay(make_manager: MakeManager, memory: Memory) -> None:
    """They may belong to other proxies; the entry goes, so that it is not read for ever."""
    sealing = RecordCipher((Fernet.generate_key().decode(),))
    store_old(memory, NAME, ended=EPOCH - KEEP - 60, cipher=sealing)
    ExpiredCertificates(memory).add(ExpiredCertificate(NAME, EPOCH - KEEP - 60))

    await keep_house(make_manager())

    assert stored_keys(memory) == [f"certificates/{NAME}"]


async def test_what_earlier_releases_left_is_found(make_manager: MakeManager, memory: Memory, clock: Clock) -> None:
    """The walk lists what expired and is on no list, and nothing else; then it rests for a month."""
    store_old(memory, NAME, ended=EPOCH - KEEP - 60)
    store_old(memory, OTHER, ended=EPOCH + LIFE)
    memory.put("certificates/broken.example.test", b"not a record")
    manager = make_manager()

    await keep_house(manager, passes=2)
    assert stored_keys(memory) == [f"certificates/{OTHER}", "certificates/broken.example.test"]

    store_old(memory, NAME, ended=EPOCH - KEEP - 60)
    clock.advance(29 * DAY)
    await keep_house(manager, passes=2)
    assert f"certificates/{NAME}" in stored_keys(memory)
    clock.advance(2 * DAY)
    await keep_house(manager, passes=2)
    assert f"certificates/{NAME}" not in stored_keys(memory)


async def test_a_pass_costs_what_is_due(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """It removes and walks a bounded number, and rests less while more is due; with nothing due it reads twice."""
    monkeypatch.setattr("mitmproxy_acme.lifecycle.renewal.housekeeper._MOST_REMOVED", 30)
    monkeypatch.setattr("mitmproxy_acme.lifecycle.renewal.housekeeper._MOST_WALKED", 10)
    memory = Memory(now=clock)
    storage = Counting(memory)
    record = make_certificate([NAME], now=EPOCH - KEEP - LIFE - 60).to_record()
    for number in range(70):
        memory.put(f"certificates/n{number:02}.example.test", record)
        ExpiredCertificates(memory).add(ExpiredCertificate(ServerName(f"n{number:02}.example.test"), EPOCH - KEEP - 60))
    manager = manager_at(storage, clock)
    housekeeper = manager.make_housekeeper()

    rests = [await housekeeper.round(KEEP) for _ in range(3)]
    assert rests == [10, 10, 60]
    assert not memory.keys("certificates/")
    assert storage.calls["swap"] <= 70 + 3 * 3
    await manager.wait_idle()  # each pass is also recorded as an event

    storage.calls.clear()
    assert await housekeeper.round(KEEP) == 60
    assert dict(storage.calls) == {"keys": 1, "get": 1}
    await manager.close()


async def test_one_node_at_a_time(make_manager: MakeManager, memory: Memory) -> None:
    """While another node has the lease nothing is removed; a killed node frees it by its expiry."""
    store_old(memory, NAME, ended=EPOCH - KEEP - 60)
    ExpiredCertificates(memory).add(ExpiredCertificate(NAME, EPOCH - KEEP - 60))
    manager = make_manager()
    lease = Lease.acquire(memory, HOUSEKEEPING_SCOPE, "other")
    assert lease is not None

    await keep_house(manager)
    assert manager.store.slot(NAME).record is not None

    lease.release()
    await keep_house(manager)
    assert stored_keys(memory) == []


class Failing(Memory):
    """Fails as a killed process does: the call that removes what is named."""

    fails_at = ""

    def delete(self, key: str) -> None:
        if self.fails_at and key.startswith(self.fails_at):
            raise KeyboardInterrupt
        super().delete(key)


@pytest.mark.parametrize("at", ["renewal-info/", "expired/"])
def test_killed_in_the_middle_is_finished_by_the_next(clock: Clock, at: str) -> None:
    """The entry goes last, so the next pass finds what is left."""
    storage = Failing(now=clock)
    store_old(storage, NAME, ended=EPOCH - KEEP - 60)
    expired, entry = ExpiredCertificates(storage), ExpiredCertificate(NAME, EPOCH - KEEP - 60)
    expired.add(entry)
    storage.put(f"renewal-info/{NAME}", b"{}")
    storage.fails_at = at
    with pytest.raises(KeyboardInterrupt):
        expired.remove(entry, Store(storage, UNSEALED).slot(NAME), EPOCH, ())
    storage.fails_at = ""

    async def next_pass() -> None:
        manager = manager_at(storage, clock)
        await keep_house(manager)
        await manager.close()

    asyncio.run(next_pass())
    assert stored_keys(storage) == []


async def pass_hours(manager: Manager, clock: Clock, monotonic: Clock, hours: int) -> None:
    """Keep house once a minute, as the node itself does."""
    housekeeper = manager.make_housekeeper()
    for _ in range(60 * hours):
        clock.advance(60)
        monotonic.advance(60)
        await housekeeper.round(KEEP)


async def test_clock_that_is_wrong_for_a_while_removes_nothing(memory: Memory, clock: Clock, monotonic: Clock) -> None:
    """A machine boots a year ahead, and NTP sets it an hour later: what is valid stays, and what is over goes then."""
    manager = manager_at(memory, clock, monotonic=monotonic)
    for name, ended in ((NAME, EPOCH + DAY), (OTHER, EPOCH - KEEP - 60)):
        store_old(memory, name, ended=ended)
        ExpiredCertificates(memory).add(ExpiredCertificate(ServerName(name), ended))

    clock.advance(365 * DAY)
    await pass_hours(manager, clock, monotonic, 1)
    clock.advance(-365 * DAY)
    assert memory.keys("certificates/") == [f"certificates/{NAME}", f"certificates/{OTHER}"]

    await pass_hours(manager, clock, monotonic, 2)
    assert memory.keys("certificates/") == [f"certificates/{NAME}"]
    await manager.close()


async def test_node_that_is_ahead_of_the_others_removes_nothing(memory: Memory, clock: Clock, monotonic: Clock) -> None:
    """However long it is: not by its list, nor by its walk, and the next walk begins when it would have."""
    ahead = Clock(EPOCH + 365 * DAY)
    others, manager = manager_at(memory, clock), manager_at(memory, ahead, monotonic=monotonic)
    store_old(memory, NAME, ended=EPOCH + DAY)
    ExpiredCertificates(memory).add(ExpiredCertificate(NAME, EPOCH + DAY))
    await pass_hours(manager, ahead, monotonic, 1)

    housekeeper = manager.make_housekeeper()
    for _ in range(3):
        for each in (clock, ahead, monotonic):
            each.advance(60)
        others.nodes.heartbeat(others.node, clock())
        await housekeeper.round(KEEP)
    assert memory.keys("certificates/") == [f"certificates/{NAME}"]
    assert ExpiredCertificates(memory).walk().begin_at < EPOCH + 31 * DAY
    for one in (manager, others):
        await one.close()


async def test_record_that_cannot_be_opened_keeps_no_other_from_the_list(
    make_manager: MakeManager, memory: Memory
) -> None:
    """It is passed over: who has its key lists it."""
    store_old(memory, "a.example.test", ended=EPOCH - 2 * DAY, cipher=RecordCipher([Fernet.generate_key().decode()]))
    store_old(memory, "b.example.test", ended=EPOCH - 2 * DAY)
    store_old(memory, "c.example.test", ended=EPOCH - DAY)
    await keep_house(make_manager())
    assert [key.rpartition("~")[2] for key in memory.keys("expired/")] == ["b.example.test"]


async def test_walk_that_a_wrong_clock_put_off_begins_at_once(make_manager: MakeManager, memory: Memory) -> None:
    """Years ahead: otherwise no walk would begin for years."""
    ExpiredCertificates(memory).save_walk(Walk("", EPOCH + 3_650 * DAY))
    store_old(memory, NAME, ended=EPOCH - KEEP - 60)

    await keep_house(make_manager(), passes=2)

    assert stored_keys(memory) == []


async def test_other_nodes_hear_of_it(make_manager: MakeManager, memory: Memory) -> None:
    """The lists of all nodes are without it after their next look at the changes."""
    store_old(memory, NAME, ended=EPOCH - KEEP - 60)
    ExpiredCertificates(memory).add(ExpiredCertificate(NAME, EPOCH - KEEP - 60))
    first, second = make_manager(), make_manager()
    lists, sync = [Inventory(first), Inventory(second)], second.make_cluster_sync()
    await sync.sync()
    for inventory in lists:
        await inventory.load()
        assert len(inventory) == 1

    await keep_house(first)
    await sync._read(EPOCH)
    for inventory in lists:
        await inventory._refresh_stale()
        assert len(inventory) == 0


async def test_two_nodes_on_redis_remove_each_once(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that begin at the same moment on a real server: one has the lease, nothing is counted twice or left."""
    need("redis-server")
    with running("redis", tmp_path) as place:
        for name, value in place.environment.items():
            monkeypatch.setenv(name, value)
        storages = [open_storage(place.url, default_folder=tmp_path) for _ in range(2)]
        managers = [manager_at(storage, clock) for storage in storages]
        for number in range(40):
            id = ServerName(f"n{number:02}.example.test")
            store_old(storages[0], id, ended=EPOCH - KEEP - 60)
            ExpiredCertificates(storages[0]).add(ExpiredCertificate(id, EPOCH - KEEP - 60))
        heard = list[Event]()
        for manager in managers:
            manager.events.subscribe(heard.append)

        await asyncio.gather(*(keep_house(manager, passes=3) for manager in managers))

        assert sum(len(event.ids) for event in heard if isinstance(event, ExpiredRemoved)) == 40
        assert stored_keys(storages[1]) == []
        for manager in managers:
            await manager.close()


async def test_expired_certificates_leave_memory(make_manager: MakeManager, clock: Clock) -> None:
    """They are dropped, and not read from the storage again in each round of the renewer."""
    manager = make_manager()
    await manager.certificate_for(NAME, on_demand=True)
    clock.advance(LIFE + 1)

    await manager.cache.refresh()

    assert len(manager.cache) == 0


async def test_name_that_no_option_allows_is_read_once(make_manager: MakeManager, memory: Memory, clock: Clock) -> None:
    """Its overdue check moves to the certificate's end, instead of being read in every round, and it is given up."""
    store_old(memory, "gone.example.net", ended=EPOCH + 10 * DAY)
    manager = make_manager()
    memory.put("calendar/00499999/00~gone.example.net", b"1799996400.0")
    renewer = manager.make_renewer()

    await live(renewer, clock, DAY)
    await live(renewer, clock, DAY)
    assert not list(manager.schedule.due_by(clock()))
    await live(renewer, clock, 13 * DAY)
    await live(renewer, clock, DAY)
    assert [key.partition("/")[0] for key in stored_keys(memory)] == ["certificates", "expired"]


def test_broken_keys_are_not_in_the_way(memory: Memory) -> None:
    """Whatever else is written under the list's prefix is dropped when it comes up."""
    memory.put("expired/00000001/junk", b"")
    memory.put("expired/00000002/00~" + NAME, b"")
    expired = ExpiredCertificates(memory)

    assert [entry.id for entry in expired.ended_by(EPOCH, limit=9)] == [NAME]
    assert memory.keys("expired/") == [f"expired/00000002/00~{NAME}"]


def test_broken_walk_begins_anew(memory: Memory) -> None:
    for junk in (b"", b"{}", b"[1]", b'{"after": "", "begin_at": "nan"}', b'{"after": "", "begin_at": Infinity}'):
        memory.put("housekeeping/walk", junk)
        assert ExpiredCertificates(memory).walk().begin_at == 0


@pytest.mark.parametrize("error", [StorageUnavailable("down"), RuntimeError("a fault")])
async def test_round_that_fails_does_not_end_the_rounds(
    make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """The storage's trouble is told, a fault of ours is logged, and the next round comes."""
    manager, rests, rounds = make_manager(acme_keep_expired="30d"), list[float](), list[float]()
    keeper = manager.make_housekeeper()

    async def fail(keep: float) -> float:
        rounds.append(keep)
        raise error

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        if len(rests) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(keeper, "round", fail)
    monkeypatch.setattr(asyncio, "sleep", rest)
    with pytest.raises(asyncio.CancelledError):
        await keeper.run()
    down = isinstance(error, StorageUnavailable)
    assert len(set(rests)) == 1
    assert rounds == [KEEP, KEEP]
    assert manager.health.trouble_now == ("down" if down else None)
    assert ("the removal of expired certificates failed" in caplog.text) is not down


async def test_walk_goes_on_where_it_ended(
    make_manager: MakeManager, memory: Memory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page in each round; after the last one it rests."""
    monkeypatch.setattr("mitmproxy_acme.lifecycle.renewal.housekeeper._MOST_WALKED", 2)
    names = [ServerName(f"n{number}.example.test") for number in range(5)]
    for name in names:
        memory.put(f"certificates/{name}", make_certificate([name], now=clock() - 100 * DAY).to_record())
    expired = ExpiredCertificates(memory)
    for listed in (2, 4, 5, 5):
        await keep_house(make_manager())
        assert [entry.id for entry in expired.ended_by(clock(), limit=10)] == names[:listed]
    assert expired.walk().begin_at > clock()


@pytest.mark.parametrize("record", [b"not a record", b"{}", None])
async def test_listed_name_without_a_readable_certificate_is_forgotten(
    make_manager: MakeManager, memory: Memory, record: bytes | None
) -> None:
    """What cannot be read is left for a person to look at; the list is not read for ever because of it."""
    if record is not None:
        memory.put(f"certificates/{NAME}", record)
    ExpiredCertificates(memory).add(ExpiredCertificate(NAME, EPOCH - KEEP - 60))

    await keep_house(make_manager())

    assert memory.keys("expired/") == []
    assert memory.get(f"certificates/{NAME}") == record
