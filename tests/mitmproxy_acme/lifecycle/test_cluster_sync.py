"""What the nodes of a cluster learn from each other, and when."""

import asyncio
import math
from collections.abc import Coroutine
from typing import Any

import pytest
from cryptography.fernet import Fernet

from acme_storage import StorageCorrupt, StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.core.backoff import Backoff
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.errors import (
    BackingOff,
    ChallengeFailed,
    DecryptionFailed,
    IssuanceError,
    NoControlNode,
    SettingsRefused,
)
from mitmproxy_acme.core.events import CheckScheduled, Event
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.lifecycle.cluster_sync import ClusterSync
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.store.change_feed import ANNOUNCED_FOR, READ_EVERY
from mitmproxy_acme.store.keys import certificate_key
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import Clock, FakeIssuer, manager_on
from tests.mitmproxy_acme.lifecycle.test_predecessor import SlowIssuer

NAME = ServerName("a.example.test")
SUBJECT = Subject((NAME,))


async def served(manager: Manager) -> Certificate:
    certificate = await manager.certificate_for(NAME, on_demand=True)
    assert certificate is not None
    return certificate


async def followed(make_manager: MakeManager) -> tuple[Manager, Manager, ClusterSync]:
    """Return two nodes that serve the name, and the sync by which the second follows the first."""
    first, second = make_manager(), make_manager()
    await served(first)
    await served(second)
    feed = second.make_cluster_sync()
    await feed.sync()
    return first, second, feed


async def renewed(manager: Manager) -> Certificate:
    subject = manager.config.subject(NAME)
    assert subject is not None
    return await manager.obtain(subject, replacing=manager.cache.get(NAME))


async def test_renewal_on_one_node_is_served_by_the_others(
    make_manager: MakeManager, clock: Clock, issuer: FakeIssuer
) -> None:
    """Even if the old certificate is new: the CA may have revoked it."""
    first, second, feed = await followed(make_manager)
    clock.advance(READ_EVERY)
    new = await renewed(first)
    await feed.sync()
    cached = second.cache.get(NAME)
    assert cached is not None
    assert cached.fingerprint == new.fingerprint
    assert len(issuer.orders) == 2


async def test_renewal_that_a_node_has_no_key_for_leaves_it_what_it_holds(
    make_manager: MakeManager, clock: Clock, issuer: FakeIssuer
) -> None:
    """Until its options have the new storage key it serves the old certificate, and neither orders nor drops any."""
    old_key, new_key = (Fernet.generate_key().decode() for _ in range(2))
    behind, ahead = make_manager(acme_storage_key=old_key), make_manager(acme_storage_key=f"{new_key},{old_key}")
    feed = behind.make_cluster_sync()
    held = await served(behind)
    await served(ahead)
    await feed.sync()
    clock.advance(READ_EVERY)
    await renewed(ahead)
    await feed.sync()
    assert behind.cache.get(NAME) is held
    assert len(issuer.orders) == 2


async def test_deletion_on_one_node_is_a_deletion_on_all(make_manager: MakeManager, clock: Clock) -> None:
    """No node serves the certificate any longer, not even one that has not read the changes for hours."""
    first, second, feed = await followed(make_manager)
    await first.delete(NAME)
    assert first.cache.get(NAME) is None
    assert second.cache.get(NAME) is not None
    clock.advance(3 * 3_600)
    await feed.sync()
    assert second.cache.get(NAME) is None


async def test_announced_renewal_whose_record_is_lost_is_no_deletion(
    make_manager: MakeManager, clock: Clock, memory: Memory, issuer: FakeIssuer
) -> None:
    """The storage goes down and comes back empty between the announcement and the look at the record."""
    first, second, feed = await followed(make_manager)
    clock.advance(READ_EVERY)
    await renewed(first)
    memory.delete(certificate_key(NAME))
    held = second.cache.get(NAME)

    await feed.sync()

    assert held is not None
    assert second.cache.get(NAME) is held
    assert len(issuer.orders) == 2


async def test_deletion_by_a_clock_that_is_behind_is_found_within_a_minute(
    make_manager: MakeManager, clock: Clock
) -> None:
    """An hour behind: its announcement sorts before all that a node reads every few seconds."""
    first, second, feed = await followed(make_manager)
    clock.advance(READ_EVERY)
    clock.advance(-3_600)
    await first.delete(NAME)
    clock.advance(3_600)
    await feed.sync()
    assert second.cache.get(NAME) is not None
    for _ in range(10):
        clock.advance(READ_EVERY)
        await feed.sync()
    assert second.cache.get(NAME) is None


async def test_clock_that_is_set_back_keeps_no_node_from_following(make_manager: MakeManager, clock: Clock) -> None:
    """It reads the announcements and sends its heartbeat at once, and not when that hour comes again."""
    first, second, feed = await followed(make_manager)
    clock.advance(-3_600)
    await first.delete(NAME)
    second.nodes.sign_off(second.node)
    await feed.sync()
    assert second.cache.get(NAME) is None
    assert second.node in second.nodes.list_up()


async def test_change_that_could_not_be_looked_at_is_looked_at_later(
    make_manager: MakeManager, clock: Clock, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No change is lost where the storage fails between the announcement and the certificate."""
    first, second, feed = await followed(make_manager)
    await first.delete(NAME)
    clock.advance(READ_EVERY)
    with monkeypatch.context() as broken:
        broken.setattr(memory, "get", fail)
        with pytest.raises(StorageUnavailable):
            await feed.sync()
    assert second.cache.get(NAME) is not None
    clock.advance(READ_EVERY)
    await feed.sync()
    assert second.cache.get(NAME) is None


async def test_deleted_certificate_is_served_under_none_of_its_names(make_manager: MakeManager, clock: Clock) -> None:
    """On the node that deletes it, and on those that hear of it."""
    managed, other = "a.example.test,b.example.test", ServerName("b.example.test")
    first, second = make_manager(acme_certificates=(managed,)), make_manager(acme_certificates=(managed,))
    feed = second.make_cluster_sync()
    for manager in (first, second):
        assert await manager.certificate_for(NAME, on_demand=True) is not None
        assert manager.cache.get(other) is manager.cache.get(NAME) is not None
    await feed.sync()
    await first.delete(NAME)
    clock.advance(READ_EVERY)
    await feed.sync()
    for manager in (first, second):
        assert (manager.cache.get(NAME), manager.cache.get(other)) == (None, None)


async def test_certificate_whose_record_is_damaged_is_served_on(
    make_manager: MakeManager, clock: Clock, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another node changed cannot be read: that is no deletion."""
    first, second, feed = await followed(make_manager)
    held = second.cache.get(NAME)
    await renewed(first)
    clock.advance(READ_EVERY)

    def corrupt(key: str) -> bytes:
        raise StorageCorrupt(key)

    with monkeypatch.context() as broken:
        broken.setattr(memory, "get", corrupt)
        await feed.sync()
    assert second.cache.get(NAME) is held is not None


async def test_feed_remembers_no_change_that_is_no_longer_announced(make_manager: MakeManager, clock: Clock) -> None:
    """A node that runs for months keeps what is listed, and not all that ever was."""
    manager, other = make_manager(), make_manager()
    changes = other._base.changes
    for _ in range(20):
        manager._base.changes.announce(NAME, clock())
        assert changes.read_new(clock()) == [NAME]
        clock.advance(ANNOUNCED_FOR + 1)
    assert len(changes._read) == 1


async def test_node_that_ends_answers_what_it_has_begun(memory: Memory, clock: Clock) -> None:
    """It says that it is down when the order of a data node has ended, and not before."""
    issuer = SlowIssuer(clock)
    manager = manager_on(memory, clock, issuer, acme_role="control")
    sync = manager.make_cluster_sync()
    manager._base.requests.ask(NAME)
    await sync.sync()
    await issuer.asked_for_one.wait()

    closing = asyncio.ensure_future(sync.close())
    for _ in range(20):
        await asyncio.to_thread(lambda: None)
    assert manager.node in manager.nodes.list_up()
    issuer.may_answer.set()
    await closing
    assert manager.node not in manager.nodes.list_up()
    assert manager._base.requests.pending(clock()) == []
    await manager.close()


async def test_data_node_hears_how_long_the_name_backs_off(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock
) -> None:
    """Not only for the seconds for which it repeats a refusal: the client is told when to come back."""
    manager = make_manager(acme_role="control")
    sync, requests = manager.make_cluster_sync(), manager._base.requests
    issuer.error = ChallengeFailed("no route")
    for until in (clock() + 10, clock() + 11 + 49):
        requests.ask(NAME)
        await sync.sync()
        await sync._answers.wait_idle()
        refusal = requests.ask(NAME).refusal
        assert refusal is not None
        assert refusal.until == until
        clock.advance(11)


async def test_feed_is_read_every_few_seconds_and_each_change_once(
    make_manager: MakeManager, clock: Clock, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync before that reads nothing, and a known change costs nothing more."""
    *_, feed = await followed(make_manager)
    reads: list[str] = []
    keys = memory.keys

    def listed(prefix: str, **page: Any) -> list[str]:
        reads.append(prefix)
        return keys(prefix, **page)

    monkeypatch.setattr(memory, "get", lambda key: reads.append(key))
    monkeypatch.setattr(memory, "keys", listed)
    await feed.sync()
    assert reads == []
    clock.advance(READ_EVERY)
    await feed.sync()
    assert reads == ["changes/"]


@pytest.mark.parametrize("away", [ANNOUNCED_FOR + 1, 2 * ANNOUNCED_FOR])
async def test_node_that_could_not_read_looks_at_all_it_holds(
    make_manager: MakeManager, clock: Clock, memory: Memory, away: float
) -> None:
    """Announcements that expired while storage was down are not missed; a certificate that is gone is served on."""
    first, second, feed = await followed(make_manager)
    new = await renewed(first)
    clock.advance(away)
    await feed.sync()
    cached = second.cache.get(NAME)
    assert cached is not None
    assert cached.fingerprint == new.fingerprint

    for key in memory.keys(""):  # a store that lost everything
        memory.delete(key)
    clock.advance(2 * ANNOUNCED_FOR)
    await feed.sync()
    assert second.cache.get(NAME) is cached


async def test_old_deletions_are_read_once_and_not_every_time(
    make_manager: MakeManager, clock: Clock, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are announced for a day, for nodes that were away; the others read only the latest ones."""
    manager = make_manager()
    for number in range(100):
        manager._base.changes.announce(ServerName(f"n{number}.test"), clock(), deleted=True)
    clock.advance(3_600)
    other = make_manager()
    assert len(other._base.changes.read_new(clock(), all=True)) == 100
    manager._base.changes.announce(NAME, clock() - 300, deleted=True)  # by a clock that is five minutes slow
    keys, pages = memory.keys, list[str]()

    def listed(prefix: str, **page: Any) -> list[str]:
        pages.extend(found := keys(prefix, **page))
        return found

    monkeypatch.setattr(memory, "keys", listed)
    assert other._base.changes.read_new(clock()) == [NAME]
    assert len(pages) == 1
    assert other._base.changes.read_new(clock(), all=True) == []
    assert len(pages) == 1 + 101


async def test_announcements_end(make_manager: MakeManager, clock: Clock, memory: Memory) -> None:
    """The change feed lists only the latest changes."""
    manager = make_manager()
    await served(manager)
    assert len(memory.keys("changes/")) == 1
    clock.advance(ANNOUNCED_FOR + 1)
    assert memory.keys("changes/") == []


class TestStorageDown:
    """Logged once when the storage goes down, and once when it is back."""

    async def test_reads_fail(
        self,
        make_manager: MakeManager,
        memory: Memory,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The sync and the renewer both notice it, and log one line."""
        manager = make_manager()
        with monkeypatch.context() as broken:
            for method in ("keys", "put"):
                broken.setattr(memory, method, fail)
            running = asyncio.ensure_future(manager.make_cluster_sync().run())
            await manager.make_renewer()._round()
            await asyncio.sleep(0.05)
            running.cancel()
            assert not await manager.health.check()
        assert await manager.health.check()
        assert not await manager.health.check()
        assert caplog.text.count("storage is down") == 1
        assert caplog.text.count("storage is back") == 1

    async def test_disk_that_only_reads_is_not_said_to_be_back(
        self,
        make_manager: MakeManager,
        memory: Memory,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A handshake without its lease logs that once, and a successful read is no recovery."""
        manager = make_manager()
        with monkeypatch.context() as broken:
            for method in ("put", "swap"):
                broken.setattr(memory, method, fail)
            for _ in range(2):
                with pytest.raises(StorageUnavailable):
                    await served(manager)
                await manager.make_cluster_sync().sync()
                await manager.health.check()
        assert caplog.text.count("storage is down") == 1
        assert "storage is back" not in caplog.text
        await manager.health.check()
        assert caplog.text.count("storage is back") == 1

    async def test_what_waited_for_storage_waits_no_longer(
        self, make_manager: MakeManager, memory: Memory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """When it is back the renewer wakes at once, and not after half a minute."""
        manager = make_manager()
        woken, events = asyncio.Event(), list[Event]()
        manager.events.subscribe(events.append)
        manager.events.subscribe(lambda _: woken.set())
        with monkeypatch.context() as broken:
            broken.setattr(memory, "put", fail)
            manager.health.trouble(StorageUnavailable("down"))
            assert not await manager.health.check()
        running = asyncio.ensure_future(manager.make_cluster_sync().run())
        await asyncio.wait_for(woken.wait(), 5)
        running.cancel()
        assert events == [CheckScheduled(manager.now())]

    async def test_what_the_storage_lost_meanwhile_is_stored_again(
        self, make_manager: MakeManager, memory: Memory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It may have come back as an older copy, which has all marks and lacks the last certificates."""
        manager, rested = make_manager(), asyncio.Event()
        certificate, sync = await served(manager), manager.make_cluster_sync()
        await sync.sync()
        manager.health.trouble(StorageUnavailable("down"))
        memory.delete(certificate_key(NAME))

        async def rest(seconds: float) -> None:
            rested.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(manager.health, "rest", rest)
        sync._read_at = -math.inf
        running = asyncio.ensure_future(sync.run())
        await asyncio.wait_for(rested.wait(), 5)
        running.cancel()
        stored = manager.store.slot(NAME).certificate
        assert stored is not None
        assert stored.fingerprint == certificate.fingerprint


@pytest.mark.parametrize("step", ["delete", "put"])
async def test_deletion_that_took_effect_before_the_storage_failed_is_one(
    make_manager: MakeManager, memory: Memory, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The person is told of the failure, and the node does not serve on what is gone."""
    manager = make_manager()
    await served(manager)
    feed, call = manager.make_cluster_sync(), getattr(memory, step)
    await feed.sync()

    def fail_after(*arguments: Any, **options: Any) -> None:
        call(*arguments, **options)
        if certificate_key(NAME) not in memory.keys("certificates/"):
            raise StorageUnavailable("the connection is lost")

    with monkeypatch.context() as failing:
        failing.setattr(memory, step, fail_after)
        with pytest.raises(StorageUnavailable):
            await manager.delete(NAME)
    assert manager.cache.get(NAME) is not None
    await feed._read(manager.now())
    assert manager.cache.get(NAME) is None


async def test_deletion_that_failed_changes_nothing(
    make_manager: MakeManager, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The certificate is stored, and served on."""
    manager = make_manager()
    await served(manager)
    feed = manager.make_cluster_sync()
    with monkeypatch.context() as failing:
        failing.setattr(memory, "delete", fail)
        with pytest.raises(StorageUnavailable):
            await manager.delete(NAME)
    await feed.sync()
    assert manager.cache.get(NAME) is not None


async def test_fault_does_not_end_the_sync(
    make_manager: MakeManager, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged, and the next read is made after a rest."""
    manager, rests = make_manager(), list[float]()
    sync = manager.make_cluster_sync()
    results = iter([KeyError("a fault"), StorageUnavailable("down"), None])

    async def work() -> None:
        if (error := next(results)) is not None:
            raise error

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        if len(rests) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(sync, "sync", work)
    monkeypatch.setattr(manager.health, "rest", rest)
    monkeypatch.setattr(manager.health, "require", lambda: None)
    with pytest.raises(asyncio.CancelledError):
        await sync.run()
    assert caplog.text.count("the changes of the other nodes could not be read") == 1
    assert caplog.text.count("storage is down") == 1
    assert rests == [READ_EVERY] * 3


@pytest.mark.parametrize(("role", "seconds"), [("standalone", 3.0), ("control", 0.3)])
async def test_control_node_reads_requests_more_often(
    make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch, role: str, seconds: float
) -> None:
    """A client waits for its answer."""
    manager = make_manager(acme_role=role, acme_storage="redis://127.0.0.1/0")

    async def rest(given: float) -> None:
        assert given == seconds
        raise asyncio.CancelledError

    monkeypatch.setattr(manager.health, "rest", rest)
    with pytest.raises(asyncio.CancelledError):
        await manager.make_cluster_sync().run()


async def test_node_ends_although_it_cannot_say_so(
    make_manager: MakeManager, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others notice by themselves."""
    sync = make_manager().make_cluster_sync()
    with monkeypatch.context() as broken:
        broken.setattr(memory, "delete", fail)
        await sync.close()


def fail(*_: object, **__: object) -> None:
    raise StorageUnavailable("no connection")


async def answered[T](feed: ClusterSync, asked: Coroutine[None, None, T]) -> T:
    """Return what ``asked`` returns while a control node answers requests."""
    waiting = asyncio.ensure_future(asked)
    while not waiting.done():
        await feed.sync()
        await asyncio.sleep(0.01)
    return waiting.result()


class TestRoles:
    """A control node orders for data nodes, which never talk to a CA."""

    async def test_certificate_comes_from_the_control_node(self, make_manager: MakeManager, issuer: FakeIssuer) -> None:
        """The handshake at the data node waits for it; the options of the data node name no CA and no terms."""
        control = make_manager(acme_role="control")
        data = make_manager(acme_role="data", acme_tos_accepted=False)
        feed = control.make_cluster_sync()
        await feed.sync()
        waiting = asyncio.ensure_future(served(data))
        while not waiting.done():
            await feed.sync()
            await asyncio.sleep(0.01)
        assert len(issuer.orders) == 1
        assert control.cache.get(NAME) is not None
        await feed.close()

    async def test_data_node_that_lacks_the_storage_key_says_so(
        self, make_manager: MakeManager, issuer: FakeIssuer, memory: Memory, clock: Clock
    ) -> None:
        """It says which option is missing, without a certificate as well as for one that the control node encrypted."""
        control = make_manager(acme_role="control", acme_storage_key=Fernet.generate_key().decode())
        data = make_manager(acme_role="data")
        feed = control.make_cluster_sync()
        await feed.sync()
        waiting = asyncio.ensure_future(served(data))
        while not waiting.done():
            await feed.sync()
            await asyncio.sleep(0.01)
        with pytest.raises(DecryptionFailed, match="acme_storage_key is not set"):
            await waiting
        assert memory.keys("requests/") == []
        assert issuer.orders == []
        clock.advance(3_600)
        await feed.sync()
        await served(control)
        with pytest.raises(DecryptionFailed):
            await served(data)
        assert len(issuer.orders) == 1
        await feed.close()

    async def test_without_a_control_node_it_is_refused_at_once(self, make_manager: MakeManager) -> None:
        """No request is stored, and the error says what is missing."""
        data = make_manager(acme_role="data")
        with pytest.raises(NoControlNode, match="no control node is up"):
            await served(data)

    async def test_control_node_that_stops_says_so(self, make_manager: MakeManager, clock: Clock) -> None:
        """One that is killed counts as down after some seconds."""
        control, data = make_manager(acme_role="control"), make_manager(acme_role="data")
        feed = control.make_cluster_sync()
        await feed.sync()
        assert data.nodes.control_is_up()
        await feed.close()
        assert not data.nodes.control_is_up()
        clock.advance(10)
        await feed.sync()
        assert data.nodes.control_is_up()
        clock.advance(21)
        assert not data.nodes.control_is_up()

    @pytest.mark.parametrize("error", [ChallengeFailed("dns: no such host"), SettingsRefused("no such account")])
    async def test_refusal_reaches_the_data_node(
        self, make_manager: MakeManager, issuer: FakeIssuer, error: IssuanceError
    ) -> None:
        """With its reason, at once, and with one order for any number of visits."""
        control, data = make_manager(acme_role="control"), make_manager(acme_role="data")
        issuer.error = error
        feed = control.make_cluster_sync()
        await feed.sync()
        for _ in range(5):
            waiting = asyncio.ensure_future(served(data))
            while not waiting.done():
                await feed.sync()
                await asyncio.sleep(0.01)
            with pytest.raises(BackingOff, match=str(error)):
                waiting.result()
        assert len(issuer.orders) == 1
        await feed.close()

    async def test_person_at_a_data_node_has_it_tried_now(
        self, make_manager: MakeManager, issuer: FakeIssuer, clock: Clock, memory: Memory
    ) -> None:
        """The control node forgets the backoff of the name, which visits keep: in its memory, and stored."""
        control, data = make_manager(acme_role="control"), make_manager(acme_role="data")
        issuer.error = ChallengeFailed("dns: no such host")
        feed = control.make_cluster_sync()
        with pytest.raises(ChallengeFailed):
            await control.ensure(SUBJECT)
        clock.advance(20)
        await feed.sync()
        with pytest.raises(BackingOff, match="retry in"):
            await answered(feed, data.ensure(SUBJECT))
        with pytest.raises(BackingOff, match="has no certificate: dns: no such host"):
            await answered(feed, data.issue(SUBJECT))
        assert len(issuer.orders) == 2
        issuer.error = None
        assert (await answered(feed, data.issue(SUBJECT))).id == NAME
        assert memory.keys("backoffs/") == memory.keys("requests/") == []
        await feed.close()

    async def test_person_is_answered_where_a_visitor_asked_before(
        self, make_manager: MakeManager, issuer: FakeIssuer, clock: Clock
    ) -> None:
        """The refusal for the visitor does not answer the person who came meanwhile."""
        control = make_manager(acme_role="control")
        requests = control._base.requests
        requests.ask(NAME)
        requests.ask(NAME, for_person=True)
        requests.refuse(NAME, Backoff(1, clock() + 60, "the visitor's"), 10.0, for_person=False)
        assert requests.ask(NAME).refusal is None
        assert requests.is_for_person(NAME)
        requests.refuse(NAME, Backoff(1, clock() + 60, "the person's"), 10.0, for_person=True)
        assert (refusal := requests.ask(NAME).refusal) is not None
        assert refusal.reason == "the person's"

    async def test_control_node_that_does_not_allow_the_name_says_so(
        self, make_manager: MakeManager, issuer: FakeIssuer
    ) -> None:
        """Its own options decide what it orders."""
        control = make_manager(acme_role="control", acme_domains=("other.test",))
        data = make_manager(acme_role="data")
        feed = control.make_cluster_sync()
        await feed.sync()
        waiting = asyncio.ensure_future(served(data))
        while not waiting.done():
            await feed.sync()
            await asyncio.sleep(0.01)
        with pytest.raises(BackingOff, match="allows a certificate for the name"):
            waiting.result()
        assert issuer.orders == []
        await feed.close()

    async def test_data_node_does_not_renew(self, make_manager: MakeManager, clock: Clock, issuer: FakeIssuer) -> None:
        """An overdue certificate is served on; the control nodes renew it."""
        await served(make_manager())
        data = make_manager(acme_role="data")
        await served(data)
        clock.advance(70 * 86_400)
        renewer = data.make_renewer()
        await renewer._round()
        await renewer._checks.wait_idle()
        assert len(issuer.orders) == 1
        assert data.cache.get(NAME) is not None

    async def test_managed_certificate_of_a_data_node_comes_from_the_control_node(
        self, make_manager: MakeManager
    ) -> None:
        """Both list it; the data node has it from the start."""
        names = {"acme_certificates": ("m.test,www.m.test",)}
        control, data = make_manager(acme_role="control", **names), make_manager(acme_role="data", **names)
        feed, renewer = control.make_cluster_sync(), data.make_renewer()
        await feed.sync()
        await renewer._round()
        looking = asyncio.ensure_future(renewer._checks.wait_idle())
        while not looking.done():
            await feed.sync()
            await asyncio.sleep(0.01)
        assert data.cache.get(ServerName("www.m.test")) is not None
        await feed.close()
