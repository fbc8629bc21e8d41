"""Which certificate is served, from memory, from storage or by an order."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from acme_storage import StorageCorrupt, StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.ca.issuer import Issuer
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.account import Account
from mitmproxy_acme.core.backoff import Backoff
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.errors import (
    AccountUnusable,
    BackingOff,
    ChallengeFailed,
    ConfigError,
    DecryptionFailed,
    IssuanceError,
    IssuerUnavailable,
    NameNotAllowed,
    NotFound,
    RateLimited,
    SettingsRefused,
    WrongNode,
)
from mitmproxy_acme.core.events import CheckScheduled, Event
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.lifecycle.ordering.backoff_registry import BackoffRegistry
from mitmproxy_acme.lifecycle.ordering.failure_log import FailedAttempt
from mitmproxy_acme.store.certificate_writer import CertificateWriter
from mitmproxy_acme.store.change_feed import READ_EVERY
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.lease import Lease
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import DIRECTORY, EPOCH, UNSEALED, Clock, FakeIssuer, make_certificate, manager_on
from tests.mitmproxy_acme.lifecycle.test_predecessor import SlowIssuer

NAME = ServerName("a.example.test")
KEY, OTHER_KEY = (Fernet.generate_key().decode() for _ in range(2))


def store(memory: Memory, certificate: Certificate, sealing: RecordCipher = UNSEALED) -> None:
    view = Store(memory, sealing)
    assert view.replace(view.slot(certificate.id), certificate)


@pytest.mark.parametrize("call", ["renew", "revoke"])
async def test_data_node_refuses_what_needs_a_ca(make_manager: MakeManager, memory: Memory, call: str) -> None:
    """A control node does that."""
    manager = make_manager(acme_role="data")
    store(memory, make_certificate([NAME]))
    with pytest.raises(WrongNode, match="this is a data node"):
        await (manager.renew(Subject((NAME,))) if call == "renew" else manager.revoke(NAME, "superseded"))
    assert manager.store.slot(NAME).certificate is not None


async def test_first_visit_orders_and_the_next_is_cached(make_manager: MakeManager, issuer: FakeIssuer) -> None:
    """A name is ordered once; from then on it is in memory."""
    manager = make_manager()
    assert manager.cache.get(NAME) is None

    certificate = await manager.certificate_for(NAME, on_demand=True)

    assert certificate is not None
    assert manager.cache.get(NAME) is certificate
    assert [str(subject) for subject in issuer.orders] == [NAME]


async def test_other_node_and_next_start_find_it_in_storage(make_manager: MakeManager, issuer: FakeIssuer) -> None:
    """What one node ordered is served by every other, without an order."""
    await make_manager().certificate_for(NAME, on_demand=True)
    assert await make_manager().certificate_for(NAME, on_demand=True) is not None
    assert len(issuer.orders) == 1


async def test_hundred_visitors_share_one_order(make_manager: MakeManager, issuer: FakeIssuer) -> None:
    """Single flight: any number of callers, on any number of nodes, cost one order."""
    nodes = [make_manager(), make_manager()]
    await asyncio.gather(*(node.certificate_for(NAME, on_demand=True) for node in nodes for _ in range(50)))
    assert len(issuer.orders) == 1


async def test_visitor_that_leaves_does_not_end_the_order(make_manager: MakeManager, issuer: FakeIssuer) -> None:
    """Cancelling one that waits leaves the order going on."""
    manager = make_manager()
    visitor = asyncio.ensure_future(manager.certificate_for(NAME, on_demand=True))
    await asyncio.sleep(0)
    visitor.cancel()
    await manager.obtain(Subject((NAME,)))
    assert len(issuer.orders) == 1


@pytest.mark.parametrize("name", ["example.test", "www.elsewhere.test"])
async def test_name_that_no_option_allows(
    make_manager: MakeManager, issuer: FakeIssuer, memory: Memory, name: str
) -> None:
    """A stranger's name costs neither storage nor CA."""
    manager = make_manager()
    with pytest.raises(NameNotAllowed):
        await manager.certificate_for(ServerName(name), on_demand=True)
    assert (issuer.orders, memory.keys("")) == ([], [])


async def test_nothing_is_ordered_where_on_demand_is_not(make_manager: MakeManager, issuer: FakeIssuer) -> None:
    """Without on-demand, names of the policy are not ours, and a managed one is served only if it is stored."""
    manager = make_manager(acme_certificates=("m.test",))
    with pytest.raises(NameNotAllowed):
        await manager.certificate_for(NAME, on_demand=False)
    assert await manager.certificate_for(ServerName("m.test"), on_demand=False) is None
    assert issuer.orders == []


async def test_background_answers_at_once(make_manager: MakeManager, issuer: FakeIssuer) -> None:
    """``background`` gives the fallback to the first visitor and the certificate to the next."""
    manager = make_manager(acme_on_demand="background")
    assert await manager.certificate_for(NAME, on_demand=True) is None
    await manager.obtain(Subject((NAME,)))
    assert manager.cache.get(NAME) is not None
    assert len(issuer.orders) == 1


async def test_off_serves_what_is_stored_and_orders_nothing(
    make_manager: MakeManager, issuer: FakeIssuer, memory: Memory
) -> None:
    """``off`` never orders on demand, but a stored certificate is served."""
    manager = make_manager(acme_on_demand="off")
    with pytest.raises(IssuanceError, match="acme_on_demand is off"):
        await manager.certificate_for(NAME, on_demand=True)
    store(memory, make_certificate(["b.example.test"]))
    assert await manager.certificate_for(ServerName("b.example.test"), on_demand=True) is not None
    assert issuer.orders == []


async def test_expired_certificate_counts_as_none(make_manager: MakeManager, issuer: FakeIssuer, clock: Clock) -> None:
    """From the second of its end on a certificate is not served; a new one is ordered."""
    issuer.lifetime = 100
    manager = make_manager()
    first = await manager.certificate_for(NAME, on_demand=True)
    clock.advance(100)
    assert manager.cache.get(NAME) is None
    second = await manager.certificate_for(NAME, on_demand=True)
    assert second is not None
    assert second is not first


async def test_valid_certificate_in_storage_comes_before_an_expired_one_in_memory(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock, memory: Memory
) -> None:
    """When another node renewed, this one reloads instead of ordering."""
    issuer.lifetime = 100
    manager = make_manager()
    await manager.certificate_for(NAME, on_demand=True)
    clock.advance(100)
    store(memory, make_certificate([NAME], now=clock()))
    assert await manager.certificate_for(NAME, on_demand=True) is not None
    assert len(issuer.orders) == 1


async def test_failing_name_is_left_alone_until_its_backoff_ends(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock
) -> None:
    """One order, then refusals at once; over a restart too, and with longer waits each time."""
    issuer.error = ChallengeFailed("dns: no such host")
    for failures, wait in enumerate((60, 600, 6_000), 1):
        with pytest.raises(ChallengeFailed):
            await make_manager().certificate_for(NAME, on_demand=True)
        clock.advance(wait - 1)
        for manager in (make_manager(), make_manager()):
            with pytest.raises(BackingOff, match="no such host"):
                await manager.certificate_for(NAME, on_demand=True)
        assert len(issuer.orders) == failures
        clock.advance(1)


async def test_person_overrides_what_visits_have_locked(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock, memory: Memory
) -> None:
    """Four visits before the DNS was ready lock a name for a day, in storage too: a person does not wait for it."""
    manager, issuer.error = make_manager(), ChallengeFailed("dns: no such host")
    for wait in (61, 601, 6_001, 20):
        with pytest.raises(ChallengeFailed):
            await manager.certificate_for(NAME, on_demand=True)
        clock.advance(wait)
    with pytest.raises(BackingOff, match="retry in 24 h"):
        await make_manager().certificate_for(NAME, on_demand=True)
    issuer.error = None

    certificate = await make_manager().issue(Subject((NAME,)))

    served = await manager.certificate_for(NAME, on_demand=True)
    assert served is not None
    assert served.fingerprint == certificate.fingerprint
    assert len(issuer.orders) == 5
    assert memory.keys("backoffs/") == []


@pytest.mark.parametrize("error", [IssuerUnavailable("down"), SettingsRefused("no such account"), RateLimited("slow")])
@pytest.mark.parametrize("renew", [False, True], ids=["issue", "renew"])
async def test_person_overrides_the_backoff_of_a_ca(
    make_manager: MakeManager, issuer: FakeIssuer, memory: Memory, error: IssuanceError, renew: bool
) -> None:
    """Also one that another node has stored; and it is asked once for any number of persons."""
    subject, manager = Subject((NAME,)), make_manager()
    if renew:
        await manager.issue(subject)
    issuer.error = error
    replacing = manager.store.slot(NAME).certificate
    with pytest.raises(type(error)):
        await manager.obtain(subject, replacing=replacing)
    issuer.error, before = None, len(issuer.orders)

    act = manager.renew if renew else manager.issue
    found = await asyncio.gather(*(act(subject) for _ in range(5)))

    assert len({certificate.fingerprint for certificate in found}) == 1
    assert len(issuer.orders) == before + 1
    assert memory.keys("backoffs/") == []


async def test_person_leaves_a_ca_alone_where_another_may_be_asked(
    memory: Memory, clock: Clock, issuer: FakeIssuer
) -> None:
    """Otherwise each of a person's thousand names would wait for the CA that is down."""
    issuer.error, second = IssuerUnavailable("down"), FakeIssuer(clock, directory="https://second.test/dir")
    manager = manager_on(memory, clock, issuer, second)
    for number in range(3):
        await manager.issue(Subject((ServerName(f"n{number}.example.test"),)))
    assert (len(issuer.orders), len(second.orders)) == (1, 3)
    await manager.close()


@pytest.mark.parametrize("fails_after", [1, 2])
async def test_person_who_joins_a_visitor_is_not_refused_with_him(
    make_manager: MakeManager, issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch, fails_after: int
) -> None:
    """The order under way fails, perhaps by a cause that is fixed meanwhile: there is one more attempt.

    It may fail at any moment: after the first look at the failures, or after the second one.
    """
    manager, asked, go, subject = make_manager(), asyncio.Event(), asyncio.Event(), Subject((NAME,))
    obtain = issuer.obtain

    async def slowly(subject: Subject, replacing: Certificate | None = None) -> Certificate:
        if not go.is_set():
            asked.set()
            await go.wait()
            raise ChallengeFailed("dns: no such host")
        return await obtain(subject, replacing)

    monkeypatch.setattr(issuer, "obtain", slowly)
    visitor = asyncio.ensure_future(manager.certificate_for(NAME, on_demand=True))
    await asked.wait()
    override, overridden = BackoffRegistry.override, 0

    async def override_and_go(backoffs: BackoffRegistry, subject: Subject) -> None:
        nonlocal overridden
        overridden += 1
        await override(backoffs, subject)
        if overridden == fails_after:
            go.set()
            await asyncio.wait([visitor])

    monkeypatch.setattr(BackoffRegistry, "override", override_and_go)
    assert (await manager.issue(subject)).id == NAME

    assert overridden == fails_after + 1
    assert isinstance(visitor.exception(), ChallengeFailed)


@pytest.mark.parametrize("scope", ["a.example.test", DIRECTORY])
async def test_backoff_of_a_wrong_clock_locks_nothing(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock, scope: str
) -> None:
    """Written by a node whose clock was years ahead; one day ahead looks like an ordinary wait."""
    manager, subject = make_manager(), Subject((ServerName("a.example.test"),))
    manager.store.save_backoff(scope, Backoff(1, clock() + 5 * 365 * DAY, "dns: no such name"))
    await manager.obtain(subject)
    assert len(issuer.orders) == 1

    await manager.delete(subject.id)
    manager.store.save_backoff(scope, Backoff(1, clock() + DAY, "dns: no such name"))
    with pytest.raises(BackingOff):
        await manager.obtain(subject)


async def test_success_forgets_the_failures(make_manager: MakeManager, issuer: FakeIssuer, clock: Clock) -> None:
    """After a certificate came, the next failure is a first one again."""
    manager = make_manager()
    issuer.error = ChallengeFailed("dns")
    for _ in range(2):
        with pytest.raises(ChallengeFailed):
            await manager.certificate_for(NAME, on_demand=True)
        clock.advance(600)
    issuer.error = None
    certificate = await manager.certificate_for(NAME, on_demand=True)
    issuer.error = ChallengeFailed("dns")
    with pytest.raises(ChallengeFailed):
        await manager.obtain(Subject((NAME,)), replacing=certificate)
    refusal = manager.backoffs.active_backoff(Subject((NAME,)))
    assert refusal is not None
    assert refusal.until == clock() + 60


@pytest.mark.parametrize("error", [IssuerUnavailable("down"), SettingsRefused("unauthorized")])
async def test_trouble_of_the_ca_concerns_every_name(
    make_manager: MakeManager, issuer: FakeIssuer, error: IssuanceError
) -> None:
    """A CA that is down, or refuses our settings, is asked once per backoff and not once per name."""
    manager = make_manager()
    issuer.error = error
    for n in range(20):
        with pytest.raises(IssuanceError):
            await manager.certificate_for(ServerName(f"n{n}.example.test"), on_demand=True)
    assert len(issuer.orders) == 1


async def test_refused_settings_are_tried_anew_at_the_next_start(make_manager: MakeManager, issuer: FakeIssuer) -> None:
    """An operator who fixes an option and restarts does not wait for a backoff."""
    issuer.error = SettingsRefused("externalAccountRequired")
    with pytest.raises(SettingsRefused):
        await make_manager().certificate_for(NAME, on_demand=True)
    issuer.error = None
    assert await make_manager().certificate_for(NAME, on_demand=True) is not None


async def test_orders_that_a_dying_ca_interrupts_count_as_one_failure(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock
) -> None:
    """Eight orders under way when the CA ends do not make its backoff eight steps long."""
    manager = make_manager()
    for n in range(8):
        await manager.backoffs.record(
            Subject((ServerName(f"n{n}.example.test"),)),
            IssuerUnavailable("down"),
            FailedAttempt("ca", issuer.directory, 0.0, "n"),
        )
    refusal = manager.backoffs.active_backoff(Subject((NAME,)))
    assert refusal is not None
    assert refusal.until == clock() + 60


async def test_retry_after_of_a_rate_limit_holds(make_manager: MakeManager, issuer: FakeIssuer, clock: Clock) -> None:
    """The CA's Retry-After counts to the second, for that name."""
    manager = make_manager()
    issuer.error = RateLimited("too many", retry_after=5_000)
    with pytest.raises(RateLimited):
        await manager.certificate_for(NAME, on_demand=True)
    issuer.error = None
    clock.advance(4_999)
    with pytest.raises(BackingOff):
        await manager.certificate_for(NAME, on_demand=True)
    assert await manager.certificate_for(ServerName("b.example.test"), on_demand=True) is not None
    clock.advance(1)
    assert await manager.certificate_for(NAME, on_demand=True) is not None


async def test_broken_record_is_ordered_anew_and_replaced(
    make_manager: MakeManager, issuer: FakeIssuer, memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    """A broken record causes one clear log line, and a new order."""
    memory.put(f"certificates/{NAME}", b"{junk")
    certificate = await make_manager().certificate_for(NAME, on_demand=True)
    assert certificate is not None
    assert Store(memory, UNSEALED).slot(NAME).certificate is not None
    assert caplog.text.count("cannot be used and is ordered again") >= 1


async def test_sealed_certificate_is_never_ordered_anew(
    make_manager: MakeManager, issuer: FakeIssuer, memory: Memory, caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    """A record encrypted with another key is kept: each request gets the reason, and the log has it once."""
    store(memory, make_certificate([NAME]), RecordCipher([KEY]))
    before = {key: memory.get(key) for key in memory.keys("")}
    manager = make_manager(acme_storage_key=OTHER_KEY)
    subject = Subject((NAME,))
    for _ in range(3):
        for call in (manager.certificate_for(NAME, on_demand=True), manager.ensure(subject), manager.obtain(subject)):
            with pytest.raises(DecryptionFailed, match="acme_storage_key"):
                await call
        clock.advance(3_600)
    assert issuer.orders == []
    assert {key: memory.get(key) for key in memory.keys("")} == before
    assert len(caplog.records) == 1

    store(memory, make_certificate(["b.example.test"]), RecordCipher([OTHER_KEY]))
    assert await manager.certificate_for(ServerName("b.example.test"), on_demand=True) is not None


async def test_certificate_in_memory_outlives_a_seal_that_cannot_be_opened(
    make_manager: MakeManager, clock: Clock, memory: Memory
) -> None:
    """A node without the new key serves what it has, and loads the records that it can read."""
    names = [ServerName(f"n{n}.example.test") for n in range(2)]
    manager = make_manager()
    held = [await manager.certificate_for(name, on_demand=True) for name in names]
    clock.advance(80 * 86_400)
    for name in names:
        memory.delete(f"certificates/{name}")
    newer = make_certificate([names[1]], now=clock())
    store(memory, make_certificate([names[0]], now=clock()), RecordCipher([KEY]))
    store(memory, newer)

    await manager.cache.refresh()

    assert manager.cache.get(names[0]) is held[0]
    served = manager.cache.get(names[1])
    assert served is not None
    assert served.fingerprint == newer.fingerprint


async def test_record_that_was_sealed_during_the_order_is_not_written_over(
    make_manager: MakeManager, issuer: FakeIssuer, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new certificate is served from memory, and stored once the record is gone or can be decrypted."""
    monkeypatch.setattr("mitmproxy_acme.lifecycle.ordering.certificate_saver._SAVE_AGAIN", 0.01)
    obtain = issuer.obtain

    async def overtaken(subject: Subject, replacing: Certificate | None = None) -> Certificate:
        store(memory, make_certificate([NAME]), RecordCipher([KEY]))
        return await obtain(subject, replacing)

    loop, save, saves = asyncio.get_running_loop(), CertificateWriter.save, asyncio.Semaphore(0)

    def counted(*args: Any, **kwargs: Any) -> Certificate:
        try:
            return save(*args, **kwargs)
        finally:
            loop.call_soon_threadsafe(saves.release)

    monkeypatch.setattr(issuer, "obtain", overtaken)
    monkeypatch.setattr(CertificateWriter, "save", counted)
    manager = make_manager(acme_storage_key=OTHER_KEY)
    certificate = await manager.certificate_for(NAME, on_demand=True)
    assert certificate is not None
    assert manager.cache.get(NAME) is certificate
    for _ in range(3):  # at once, and twice later
        await saves.acquire()
    assert Store(memory, RecordCipher([KEY])).slot(NAME).certificate is not None

    memory.delete(f"certificates/{NAME}")
    await manager.wait_idle()
    stored = Store(memory, RecordCipher([OTHER_KEY])).slot(NAME).certificate
    assert stored is not None
    assert stored.fingerprint == certificate.fingerprint


@pytest.mark.parametrize("own_key", [False, True], ids=["generated key", "own key"])
async def test_sealed_account_is_never_made_anew(memory: Memory, own_key: bool, tmp_path: Path) -> None:
    """The CA is not even asked: nothing listens at its address, and yet the error is about decryption."""
    directory = "https://localhost:1/directory"
    Store(memory, RecordCipher([KEY])).save_account(Account(directory, "thumbprint", "https://localhost:1/1", "{}"))
    before = {key: memory.get(key) for key in memory.keys("")}
    options = {"acme_ca": (directory,), "acme_tos_accepted": True, "acme_domains": (NAME,)}
    if own_key:
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / "account").write_bytes(pem)
        options["acme_account_key"] = f"file:{tmp_path / 'account'}"
    manager = Manager(Config.from_options(options), memory)
    assert isinstance(manager.cas[0].issuer, Issuer)
    with pytest.raises(AccountUnusable, match="acme_storage_key is not set") as raised:
        await manager.certificate_for(NAME, on_demand=True)
    assert isinstance(raised.value.__context__, DecryptionFailed)
    with pytest.raises(BackingOff, match="acme_storage_key is not set"):
        await manager.obtain(Subject((NAME,)))
    await manager.close()
    after = {key: memory.get(key) for key in memory.keys("") if not key.startswith("events/")}
    assert after == before


async def test_old_certificate_is_served_where_its_successor_cannot_be_decrypted(
    make_manager: MakeManager, issuer: FakeIssuer, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another node stored the successor, encrypted, while this node waited to order."""
    store(memory, make_certificate([NAME], ca="https://elsewhere.test/dir"))
    manager = make_manager(acme_storage_key=OTHER_KEY)
    acquire = Lease.acquire

    def overtaken(*arguments: Any) -> Lease | None:
        store(memory, make_certificate([NAME]), RecordCipher([KEY]))
        return acquire(*arguments)

    monkeypatch.setattr(Lease, "acquire", overtaken)
    served = await manager.certificate_for(NAME, on_demand=True)
    assert served is not None
    assert served.ca == "https://elsewhere.test/dir"
    assert issuer.orders == []


async def test_nothing_is_ordered_while_storage_is_down(
    make_manager: MakeManager, issuer: FakeIssuer, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With storage down a cold name is refused at once, and a cached one is served."""
    manager = make_manager()
    cached = await manager.certificate_for(NAME, on_demand=True)
    fail_on(memory, monkeypatch, "get", "swap", "put")
    with pytest.raises(StorageUnavailable):
        await manager.certificate_for(ServerName("b.example.test"), on_demand=True)
    assert manager.cache.get(NAME) is cached
    assert len(issuer.orders) == 1


async def test_storage_that_cannot_be_written_costs_no_order(
    make_manager: MakeManager, issuer: FakeIssuer, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is noticed before the CA is asked: the lease is a write."""
    fail_on(memory, monkeypatch, "swap", "put")
    with pytest.raises(StorageUnavailable):
        await make_manager().certificate_for(NAME, on_demand=True)
    assert issuer.orders == []


async def test_certificate_that_cannot_be_stored_is_served_from_memory(
    make_manager: MakeManager, issuer: FakeIssuer, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When storage ends during an order the certificate is not lost: it is served, and stored later."""
    monkeypatch.setattr("mitmproxy_acme.lifecycle.ordering.certificate_saver._SAVE_AGAIN", 0.01)
    manager = make_manager()
    obtain = issuer.obtain

    async def then_fail(subject: Subject, replacing: Certificate | None = None) -> Certificate:
        certificate = await obtain(subject, replacing)
        fail_on(memory, monkeypatch, "put")
        return certificate

    monkeypatch.setattr(issuer, "obtain", then_fail)
    certificate = await manager.certificate_for(NAME, on_demand=True)
    assert manager.cache.get(NAME) is certificate
    assert memory.get(f"certificates/{NAME}") is None

    monkeypatch.undo()  # the disk has room again
    await manager.wait_idle()
    assert memory.get(f"certificates/{NAME}") is not None


async def test_renewal_that_is_stored_late_is_served(
    make_manager: MakeManager, clock: Clock, issuer: FakeIssuer, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage came back as it was before, and was read before the renewal was stored (simulator, seed 72097)."""
    monkeypatch.setattr("mitmproxy_acme.lifecycle.ordering.certificate_saver._SAVE_AGAIN", 0.01)
    manager = make_manager()
    sync, obtain = manager.make_cluster_sync(), issuer.obtain
    first = await manager.certificate_for(NAME, on_demand=True)
    clock.advance(600.0)
    await sync.sync()

    async def then_fail(subject: Subject, replacing: Certificate | None = None) -> Certificate:
        certificate = await obtain(subject, replacing)
        fail_on(memory, monkeypatch, "put")
        return certificate

    monkeypatch.setattr(issuer, "obtain", then_fail)
    second = await manager.obtain(Subject((NAME,)), first)
    assert manager.cache.get(NAME) is second
    await manager.cache.reload()
    assert manager.cache.get(NAME) is not second

    monkeypatch.undo()
    await manager.wait_idle()
    clock.advance(READ_EVERY)
    await sync.sync()
    served = manager.cache.get(NAME)
    assert served is not None
    assert served.fingerprint == second.fingerprint


async def test_work_is_looked_at_again_under_the_lease(
    make_manager: MakeManager, issuer: FakeIssuer, memory: Memory
) -> None:
    """One that waited for another node's lease takes that node's certificate and orders nothing."""
    manager = make_manager()
    lease = Lease.acquire(memory, NAME, "another node")
    assert lease is not None
    visitor = asyncio.ensure_future(manager.certificate_for(NAME, on_demand=True))
    await asyncio.sleep(0.05)
    store(memory, make_certificate([NAME]))
    lease.release()
    assert await visitor is not None
    assert issuer.orders == []


async def test_lease_of_a_dead_node_ends_by_itself(
    make_manager: MakeManager, issuer: FakeIssuer, memory: Memory, clock: Clock
) -> None:
    """A killed owner blocks a name until its lease expires, and no longer."""
    assert Lease.acquire(memory, NAME, "a killed node") is not None
    visitor = asyncio.ensure_future(make_manager().certificate_for(NAME, on_demand=True))
    await asyncio.sleep(0.05)
    assert issuer.orders == []
    clock.advance(10)
    assert await visitor is not None


async def test_slower_writer_does_not_overwrite_a_newer_certificate(
    make_manager: MakeManager, issuer: FakeIssuer, memory: Memory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that lost the lease during its order finds the other node's certificate, and serves that."""
    newer = make_certificate([NAME], lifetime=100 * 86_400.0)
    obtain = issuer.obtain

    async def overtaken(subject: Subject, replacing: Certificate | None = None) -> Certificate:
        store(memory, newer)
        return await obtain(subject, replacing)

    monkeypatch.setattr(issuer, "obtain", overtaken)
    served = await make_manager().certificate_for(NAME, on_demand=True)
    assert served is not None
    assert served.fingerprint == newer.fingerprint


async def test_certificate_of_another_ca_is_replaced_but_better_than_none(
    make_manager: MakeManager, issuer: FakeIssuer, memory: Memory
) -> None:
    """Changing from staging to production causes a new order; while that fails the old certificate is served."""
    staging = make_certificate([NAME], ca="https://acme-staging-v02.api.letsencrypt.org/directory")
    store(memory, staging)
    issuer.error = IssuerUnavailable("down")
    served = await make_manager().certificate_for(NAME, on_demand=True)
    assert served is not None
    assert served.fingerprint == staging.fingerprint
    issuer.error = None
    memory.delete(next(iter(memory.keys("backoffs/"))))
    served = await make_manager().certificate_for(NAME, on_demand=True)
    assert served is not None
    assert served.ca == issuer.directory


async def test_managed_certificate_is_ordered_with_all_names(make_manager: MakeManager, issuer: FakeIssuer) -> None:
    """A visit to any name of an entry gets the one certificate for all of them."""
    manager = make_manager(acme_certificates=("m.test,www.m.test",))
    certificate = await manager.certificate_for(ServerName("www.m.test"), on_demand=True)
    assert certificate is not None
    assert certificate.names == {"m.test", "www.m.test"}
    assert manager.cache.get(ServerName("m.test")) is certificate


async def test_name_added_to_an_entry_is_ordered(make_manager: MakeManager, issuer: FakeIssuer) -> None:
    """A stored certificate that lacks a name of its entry is ordered anew."""
    await make_manager(acme_certificates=("m.test",)).ensure(Subject((ServerName("m.test"),), managed=True))
    wider = make_manager(acme_certificates=("m.test,www.m.test",))
    certificate = await wider.ensure(wider.config.managed[0])
    assert certificate.names == {"m.test", "www.m.test"}


async def test_cache_is_bounded(make_manager: MakeManager, issuer: FakeIssuer) -> None:
    """The least recently used certificate leaves memory, and comes back from storage without an order."""
    manager = make_manager(acme_cache_size=2)
    names = [ServerName(f"n{n}.example.test") for n in range(3)]
    for name in names:
        await manager.certificate_for(name, on_demand=True)
    assert [manager.cache.get(name) is not None for name in names] == [False, True, True]
    assert await manager.certificate_for(names[0], on_demand=True) is not None
    assert len(issuer.orders) == 3


async def test_backoff_is_answered_from_memory(make_manager: MakeManager, issuer: FakeIssuer, memory: Memory) -> None:
    """A thousand visits to a failing name cost storage a handful of calls."""
    manager = make_manager()
    issuer.error = ChallengeFailed("dns")
    with pytest.raises(ChallengeFailed):
        await manager.certificate_for(NAME, on_demand=True)
    calls = count_calls(memory)
    for _ in range(1_000):
        with pytest.raises(IssuanceError):
            await manager.certificate_for(NAME, on_demand=True)
    assert calls() <= 4


def fail_on(memory: Memory, monkeypatch: pytest.MonkeyPatch, *methods: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StorageUnavailable("the disk is full")

    for method in methods:
        monkeypatch.setattr(memory, method, fail)


def count_calls(memory: Memory) -> Callable[[], int]:
    calls = 0

    def counted(method: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            nonlocal calls
            calls += 1
            return method(*arguments, **named)

        return call

    for name in ("get", "put", "swap", "delete", "keys"):
        setattr(memory, name, counted(getattr(memory, name)))
    return lambda: calls


def test_manager_refuses_wrong_settings(memory: Memory) -> None:
    """A CA or a key that cannot be used stops the start, before anything is read or asked."""
    for wrong in ({"acme_ca": ("http://plain.test",)}, {"acme_ca": ("zerossl",)}, {"acme_account_key": "junk"}):
        with pytest.raises(ConfigError):
            Manager(Config.from_options(wrong), memory)


async def test_certificate_that_was_never_stored_is_given_up_at_its_end(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that stays full: nothing tries for ever to store what has expired, and the node can end."""
    manager, obtain, sleep = make_manager(), issuer.obtain, asyncio.sleep
    issuer.lifetime = 600

    async def then_fail(subject: Subject, replacing: Certificate | None = None) -> Certificate:
        certificate = await obtain(subject, replacing)
        fail_on(memory, monkeypatch, "put")
        return certificate

    async def leap(seconds: float) -> None:
        clock.advance(seconds)
        await sleep(0)

    monkeypatch.setattr(issuer, "obtain", then_fail)
    await manager.certificate_for(NAME, on_demand=True)
    monkeypatch.setattr(asyncio, "sleep", leap)
    async with asyncio.timeout(20):
        await manager.wait_idle()
    assert clock() >= EPOCH + 600
    monkeypatch.undo()


async def test_certificate_has_not_failed_for_a_backoff_that_cannot_be_deleted(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record of the failures before it ends by itself."""
    manager = make_manager()
    issuer.error = ChallengeFailed("no route")
    with pytest.raises(ChallengeFailed):
        await manager.certificate_for(NAME, on_demand=True)
    issuer.error = None
    clock.advance(DAY)
    fail_on(memory, monkeypatch, "delete")
    assert await manager.certificate_for(NAME, on_demand=True) is not None
    monkeypatch.undo()


async def test_order_that_is_under_way_at_the_end_is_stored(
    memory: Memory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage is closed when nothing writes there any more: the CA has counted that order."""
    issuer, stored_at_the_end = SlowIssuer(clock), list[bool]()
    manager = manager_on(memory, clock, issuer, acme_on_demand="background")
    assert await manager.certificate_for(NAME, on_demand=True) is None
    await issuer.asked_for_one.wait()
    key = f"certificates/{NAME}"
    monkeypatch.setattr(memory, "close", lambda: stored_at_the_end.append(memory.get(key) is not None))

    closing = asyncio.ensure_future(manager.close())
    for _ in range(20):
        await asyncio.to_thread(lambda: None)
    assert not closing.done()
    issuer.may_answer.set()
    await closing
    assert stored_at_the_end == [True]


async def test_names_that_are_read_at_once_are_bounded(
    make_manager: MakeManager, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the storage hangs, strangers' names wait in no queue; those that the operator lists do."""
    monkeypatch.setattr("mitmproxy_acme.lifecycle.certificate_lookup._MOST_LOOKUPS", 1)
    hung, get = threading.Event(), memory.get

    def hang(key: str) -> bytes | None:
        hung.wait(10)
        return get(key)

    monkeypatch.setattr(memory, "get", hang)
    listed = ServerName("listed.example.test")
    manager = make_manager(acme_certificates=(listed,))
    first = asyncio.ensure_future(manager.certificate_for(NAME, on_demand=True))
    await asyncio.sleep(0)
    with pytest.raises(BackingOff, match="1 names are being looked up already"):
        await manager.certificate_for(ServerName("b.example.test"), on_demand=True)
    third = asyncio.ensure_future(manager.certificate_for(listed, on_demand=True))
    await asyncio.sleep(0)
    hung.set()
    assert await first is not None
    assert await third is not None


async def test_certificate_whose_record_is_damaged_can_be_renewed(
    make_manager: MakeManager, issuer: FakeIssuer, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was ordered before: a person who renews it makes no slip."""
    memory.put(f"certificates/{NAME}", b"x")
    manager = make_manager()

    def corrupt(key: str) -> bytes | None:
        if key.startswith("certificates/"):
            raise StorageCorrupt(key)
        return None

    monkeypatch.setattr(memory, "get", corrupt)
    assert (await manager.renew(Subject((NAME,)))).names == {NAME}


async def test_storage_that_fails_is_not_asked_by_each_visitor(
    make_manager: MakeManager, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name whose read has just failed fails from memory for some seconds: each call may take a thread for two."""
    manager, asked = make_manager(), list[str]()

    def down(key: str) -> bytes:
        asked.append(key)
        raise StorageUnavailable("down")

    monkeypatch.setattr(memory, "get", down)
    for _ in range(5):
        with pytest.raises(StorageUnavailable):
            await manager.certificate_for(NAME, on_demand=True)
    assert len(asked) == 1


async def test_certificate_that_is_there_is_returned_and_not_ordered(
    make_manager: MakeManager, issuer: FakeIssuer
) -> None:
    """To a person, and to the renewer of managed names; it is served from then on."""
    subject = Subject((NAME,))
    first = await make_manager().ensure(subject)
    for ask in (Manager.ensure, Manager.issue):
        manager = make_manager()
        found = await ask(manager, subject)
        assert found.fingerprint == first.fingerprint
        held = manager.cache.get(NAME)
        assert held is not None
        assert held.fingerprint == first.fingerprint
    assert len(issuer.orders) == 1


async def test_name_is_not_ordered_for_the_first_time_by_a_renewal(
    make_manager: MakeManager, issuer: FakeIssuer
) -> None:
    """It is a slip."""
    with pytest.raises(NotFound, match=f"no certificate is stored for {NAME}"):
        await make_manager().renew(Subject((NAME,)))
    assert issuer.orders == []


async def test_orders_under_way_are_listed_with_their_begin(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the clock that people read."""
    manager, go = make_manager(), asyncio.Event()
    obtain = issuer.obtain

    async def wait(subject: Subject, replacing: Certificate | None = None) -> Certificate:
        await go.wait()
        return await obtain(subject, replacing)

    monkeypatch.setattr(issuer, "obtain", wait)
    order = asyncio.ensure_future(manager.obtain(Subject((NAME,))))
    await asyncio.sleep(0.02)
    begun = manager.ordering()[NAME]
    assert clock() - 5 < begun < clock()
    go.set()
    await order
    assert manager.ordering() == {}


async def test_person_shares_the_order_that_is_under_way(
    make_manager: MakeManager, issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It brings what was asked for; where it fails there is one more attempt.

    No future is left with a failure that is never read: asyncio would log a traceback for it, much later.
    """
    manager, go, fails = make_manager(), asyncio.Event(), [True]
    obtain, tries = issuer.obtain, list[Subject]()
    shield, shared = asyncio.shield, list[asyncio.Future[Any]]()

    def share(future: asyncio.Future[Any]) -> asyncio.Future[Any]:
        shared.append(shield(future))
        return shared[-1]

    async def wait(subject: Subject, replacing: Certificate | None = None) -> Certificate:
        tries.append(subject)
        await go.wait()
        if len(tries) == 1 and fails[0]:
            raise ChallengeFailed("no route")
        return await obtain(subject, replacing)

    monkeypatch.setattr(issuer, "obtain", wait)
    monkeypatch.setattr(asyncio, "shield", share)
    for fails[0], most in ((False, 1), (True, 2)):
        subject = Subject((ServerName(f"n{most}.example.test"),))
        tries.clear()
        go.clear()
        visit = asyncio.ensure_future(manager.certificate_for(subject.name, on_demand=True))
        while not tries:  # noqa: ASYNC110  # until the order has begun
            await asyncio.sleep(0.001)
        person = asyncio.ensure_future(manager.issue(subject))
        await asyncio.sleep(0.02)
        go.set()
        found, seen = await asyncio.gather(person, visit, return_exceptions=True)
        assert isinstance(found, Certificate)
        assert len(tries) == most
        assert isinstance(seen, ChallengeFailed) is fails[0]
    assert shared
    assert not [future for future in shared if future._log_traceback]


async def test_full_house_of_lookups_refuses_strangers_only(
    make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A managed name is looked up all the same."""
    monkeypatch.setattr("mitmproxy_acme.lifecycle.certificate_lookup._MOST_LOOKUPS", 2)
    managed = ServerName("m.example.test")
    manager, go = make_manager(acme_certificates=(managed,)), asyncio.Event()
    read = manager.threads.storage

    async def wait(call: Any, *arguments: Any, **named: Any) -> Any:
        await go.wait()
        return await read(call, *arguments, **named)

    monkeypatch.setattr(manager.threads, "storage", wait)
    names = [ServerName(f"n{number}.example.test") for number in range(2)]
    visits = [asyncio.ensure_future(manager.certificate_for(name, on_demand=True)) for name in names]
    await asyncio.sleep(0.01)
    with pytest.raises(BackingOff, match="2 names are being looked up already"):
        await manager.certificate_for(ServerName("n3.example.test"), on_demand=True)
    visits.append(asyncio.ensure_future(manager.certificate_for(managed, on_demand=True)))
    await asyncio.sleep(0.01)
    go.set()
    assert all(await asyncio.gather(*visits))


async def test_stored_certificate_that_is_overdue_is_put_on_the_schedule(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock
) -> None:
    """A killed process may not have listed it: the renewer is woken, and the visitor is served what is there."""
    manager, heard = make_manager(acme_on_demand="background"), list[Event]()
    old = make_certificate([NAME], now=clock() - 80 * 86_400.0)
    manager.store.replace(manager.store.slot(NAME), old)
    manager.events.subscribe(heard.append)
    served = await manager.certificate_for(NAME, on_demand=True)
    assert served is not None
    assert served.fingerprint == old.fingerprint
    assert CheckScheduled(clock()) in heard
    assert [entry.id for entry in manager.schedule.due_by(clock())] == [NAME]


async def test_certificate_of_other_names_is_no_idle_one(
    make_manager: MakeManager, clock: Clock, memory: Memory
) -> None:
    """It has not expired: the name is the operator's own, and known."""
    manager = make_manager()
    other = replace(make_certificate(["b.example.test"], now=clock()), id=NAME)
    memory.put(f"certificates/{NAME}", other.to_record())
    manager._base.marks.note_obtained(NAME, other.begun)
    assert manager._base.marks.pass_over(NAME, other.begun, other.not_after)
    found = await manager._parts.lookup.find(Subject((NAME,)))
    assert (found.certificate, found.known) == (None, True)
    clock.time = other.not_after
    assert not (await manager._parts.lookup.find(Subject((NAME,)))).known


async def test_node_that_ends_waits_for_what_is_held_in_memory_only(
    make_manager: MakeManager, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate that the storage did not take is stored before the process ends."""
    manager, refused = make_manager(), list[bool]()
    save = CertificateWriter.save

    def refuse_first(writer: CertificateWriter, *arguments: Any, **named: Any) -> Certificate:
        refused.append(True)
        if len(refused) == 1:
            raise StorageUnavailable("the disk is full")
        return save(writer, *arguments, **named)

    monkeypatch.setattr(CertificateWriter, "save", refuse_first)
    monkeypatch.setattr("mitmproxy_acme.lifecycle.ordering.certificate_saver._SAVE_AGAIN", 0.02)
    assert await manager.certificate_for(NAME, on_demand=True) is not None
    assert memory.keys("certificates/") == []
    await manager.wait_idle()
    assert memory.keys("certificates/") == [f"certificates/{NAME}"]
