"""What is revoked, what replaces it, and what remains where one of the two fails."""

import asyncio
import dataclasses
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.fernet import Fernet

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.core.backoff import Backoff
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.errors import (
    ChallengeFailed,
    IssuanceError,
    IssuerUnavailable,
    NameRefused,
    NotFound,
    SettingsRefused,
)
from mitmproxy_acme.core.events import CertificateObtained, CertificateRemoved, CheckScheduled, Event
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.keys import name_scope, revocation_scope
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import EPOCH, Clock, FakeIssuer, make_certificate, manager_on

NAME = ServerName("a.example.test")
SUBJECT = Subject((NAME,))
STOLEN = "keyCompromise"


@dataclass
class Reluctant(FakeIssuer):
    """Fails its orders with ``refusal`` and its revocations with ``deaf``; delays orders until ``go``."""

    refusal: IssuanceError | None = None
    deaf: IssuanceError | None = None
    go: asyncio.Event | None = None

    async def obtain(self, subject: Subject, replacing: Certificate | None = None) -> Certificate:
        self.begun.set()
        if self.go is not None:
            await self.go.wait()
        if self.refusal is not None:
            raise self.refusal
        return await super().obtain(subject, replacing)

    async def revoke(self, certificate: Certificate, reason: str) -> None:
        self.tries += 1
        if self.deaf is not None:
            raise self.deaf
        await super().revoke(certificate, reason)
        self.serials.append(certificate.leaf.serial_number)

    def __post_init__(self) -> None:
        self.serials: list[int] = []
        self.tries = 0
        self.begun = asyncio.Event()


@pytest.fixture
def issuer(clock: Clock) -> Reluctant:
    return Reluctant(clock)


def stored(manager: Manager) -> Certificate | None:
    return manager.store.slot(NAME).certificate


async def test_stolen_key_is_replaced_first(make_manager: MakeManager, issuer: Reluctant) -> None:
    """Another key is stored and served, the old certificate is revoked, and one event says so."""
    manager, heard = make_manager(), list[Event]()
    old = await manager.obtain(SUBJECT)
    manager.events.subscribe(heard.append)

    revoked = await manager.revoke(NAME, STOLEN)

    new = stored(manager)
    assert str(revoked) == "revoked (keyCompromise) and replaced by a certificate with a new key"
    assert issuer.serials == [old.leaf.serial_number]
    assert new is not None
    assert not new.has_same_key_as(old)
    assert manager.cache.get(NAME) not in (None, old)
    assert issuer.replaced[-1] is not None
    assert [type(event) for event in heard] == [CheckScheduled, CertificateObtained, CertificateRemoved]
    assert heard[2] == CertificateRemoved(NAME, STOLEN, manager.node.id, replaced=True)
    assert manager.store.storage.keys("compromised/") == []


@pytest.mark.parametrize("reason", ["unspecified", "superseded"])
async def test_other_reasons_order_nothing(make_manager: MakeManager, issuer: Reluctant, reason: str) -> None:
    """It is revoked, and deleted."""
    manager = make_manager()
    await manager.obtain(SUBJECT)

    revoked = await manager.revoke(NAME, reason)

    assert str(revoked) == f"revoked ({reason}) and deleted"
    assert (stored(manager), manager.cache.get(NAME), len(issuer.orders)) == (None, None, 1)


async def test_stolen_key_does_not_live_on(make_manager: MakeManager, issuer: Reluctant) -> None:
    """Where no replacement comes it is revoked and deleted all the same, and the reason is reported."""
    manager = make_manager()
    old = await manager.obtain(SUBJECT)
    issuer.refusal = ChallengeFailed("no such name")

    revoked = await manager.revoke(NAME, STOLEN)

    assert str(revoked) == "revoked (keyCompromise) and deleted; no new certificate was obtained: no such name"
    assert issuer.serials == [old.leaf.serial_number]
    assert (stored(manager), manager.cache.get(NAME)) == (None, None)


async def test_slow_order_is_not_waited_for(make_manager: MakeManager, issuer: Reluctant) -> None:
    """The certificate that it brings in the end is kept."""
    manager = make_manager()
    old = await manager.obtain(SUBJECT)
    impatient = dataclasses.replace(manager.config, handshake_wait=0.01)
    revoker = dataclasses.replace(manager._parts.revoker, config=impatient)
    manager._parts = dataclasses.replace(manager._parts, revoker=revoker)
    issuer.go = asyncio.Event()
    issuer.begun.clear()
    order = asyncio.get_running_loop().create_task(manager.renew(SUBJECT))
    await issuer.begun.wait()  # so that the time is up while the CA takes its own, and not before it is asked

    revoked = await manager.revoke(NAME, STOLEN)

    assert "it did not come within" in revoked.lacking
    assert (stored(manager), issuer.serials) == (None, [old.leaf.serial_number])
    issuer.go.set()
    await order
    new = stored(manager)
    assert new is not None
    assert not new.has_same_key_as(old)


async def test_name_that_may_have_none_any_more(memory: Memory, clock: Clock, issuer: Reluctant) -> None:
    """It is revoked, and nothing is ordered."""
    first = manager_on(memory, clock, issuer)
    await first.obtain(SUBJECT)
    other = manager_on(memory, clock, issuer, acme_domains=("elsewhere.test",))

    revoked = await other.revoke(NAME, STOLEN)

    assert "no longer allow a certificate" in revoked.lacking
    assert (stored(other), len(issuer.orders)) == (None, 1)


@pytest.mark.parametrize("sealed", [False, True])
async def test_what_could_not_be_revoked_is_revoked_when_it_is_said_again(
    make_manager: MakeManager, issuer: Reluctant, sealed: bool
) -> None:
    """The replacement is served on meanwhile, and stays; the old key is kept sealed, for no other use."""
    manager = make_manager(acme_storage_key=Fernet.generate_key().decode() if sealed else "")
    old = await manager.obtain(SUBJECT)
    issuer.deaf = IssuerUnavailable("away")
    with pytest.raises(IssuanceError, match=r"has another certificate, with a new key, .* not revoked yet.*: away"):
        await manager.revoke(NAME, STOLEN)
    issuer.deaf = None
    new = stored(manager)
    assert new is not None
    assert not new.has_same_key_as(old)
    kept = manager.store.storage.get(f"compromised/{NAME}")
    assert kept is not None
    assert (b"PRIVATE KEY" in kept) is not sealed

    revoked = await manager.revoke(NAME, STOLEN)

    assert revoked.replaced
    assert issuer.serials == [old.leaf.serial_number]
    assert stored(manager) is not None
    assert len(issuer.orders) == 2
    assert manager.store.storage.keys("compromised/") == []


async def test_what_its_ca_refuses_to_revoke_is_kept_aside_no_more(
    make_manager: MakeManager, issuer: Reluctant, memory: Memory
) -> None:
    """Otherwise the next compromised key of the name would wait for it."""
    manager = make_manager()
    await manager.obtain(SUBJECT)
    issuer.deaf = SettingsRefused("badRevocationReason: no")
    with pytest.raises(IssuanceError, match="the old one is not revoked: badRevocationReason: no"):
        await manager.revoke(NAME, STOLEN)
    assert memory.keys("compromised/") == []


async def test_storage_that_keeps_nothing_aside_keeps_no_key_alive(
    make_manager: MakeManager, issuer: Reluctant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a full disk it is replaced as far as possible, and revoked."""
    manager = make_manager()
    old = await manager.obtain(SUBJECT)

    def be_full(certificate: Certificate) -> None:
        raise StorageUnavailable("no space left")

    monkeypatch.setattr(manager.store, "save_compromised", be_full)
    assert (await manager.revoke(NAME, STOLEN)).replaced
    assert issuer.serials == [old.leaf.serial_number]


async def test_ca_that_is_down_leaves_it_where_it_is(make_manager: MakeManager, issuer: Reluctant) -> None:
    """Neither replaced nor revoked: a second call starts again, and otherwise a node does."""
    manager = make_manager()
    old = await manager.obtain(SUBJECT)
    issuer.error = IssuerUnavailable("away")
    with pytest.raises(IssuanceError, match="neither replaced nor revoked yet, and it is retried automatically: away"):
        await manager.revoke(NAME, STOLEN)
    kept = stored(manager)
    assert kept is not None
    assert kept.has_same_key_as(old)


async def test_renewal_that_came_while_the_ca_was_asked_is_kept(
    make_manager: MakeManager, issuer: Reluctant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CA was slow: what is revoked is no longer what is stored, and the new one is served on."""
    manager, subject = make_manager(), Subject((NAME,))
    old, revoke = await manager.ensure(subject), issuer.revoke

    async def renew_before(certificate: Certificate, reason: str) -> None:
        await manager.renew(subject)
        await revoke(certificate, reason)

    monkeypatch.setattr(issuer, "revoke", renew_before)
    assert (await manager.revoke(NAME, "superseded")).replaced
    stored = manager.store.slot(NAME).certificate
    assert stored is not None
    assert stored.fingerprint != old.fingerprint
    assert manager.cache.get(NAME) is not None


async def test_what_is_not_stored_is_not_revoked(make_manager: MakeManager, issuer: Reluctant) -> None:
    """And nothing is ordered for it."""
    with pytest.raises(NotFound):
        await make_manager().revoke(NAME, STOLEN)
    assert issuer.orders == []


def test_kept_aside_record_that_is_broken_counts_as_none(memory: Memory) -> None:
    """No other revocation fails because of it."""
    store = Store(memory, RecordCipher(()))
    store.save_compromised(make_certificate([NAME]))
    assert store.compromised(NAME) is not None
    memory.put(f"compromised/{NAME}", b"{}")
    assert store.compromised(NAME) is None


async def left_undone(manager: Manager) -> None:
    with pytest.raises(IssuanceError, match="retried automatically"):
        await manager.revoke(NAME, STOLEN)


async def test_what_could_not_be_revoked_is_tried_until_it_is(
    make_manager: MakeManager, issuer: Reluctant, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """By two nodes, yet once: not before the backoff ends, which grows; the log says that it waits, and the end."""
    caplog.set_level("INFO")
    manager, other = make_manager(), make_manager()
    nodes, heard = [manager.make_revocation_retrier(), other.make_revocation_retrier()], list[Event]()
    old = await manager.obtain(SUBJECT)
    issuer.deaf = IssuerUnavailable("away")
    await left_undone(manager)
    tries = issuer.tries
    assert [await node.round() for node in nodes] == [10, 10]
    clock.advance(55)
    assert [await node.round() for node in nodes] == [5, 5]
    assert issuer.tries == tries

    clock.advance(5)
    await asyncio.gather(*(node.round() for node in nodes))
    assert issuer.tries == tries + 1
    issuer.deaf = None
    clock.advance(60)
    await asyncio.gather(*(node.round() for node in nodes))
    assert issuer.serials == []
    for node in (manager, other):
        node.events.subscribe(heard.append)
    clock.advance(60)
    for _ in range(2):
        await asyncio.gather(*(node.round() for node in nodes))

    assert issuer.serials == [old.leaf.serial_number]
    assert len(issuer.orders) == 2
    (removed,) = [event for event in heard if isinstance(event, CertificateRemoved)]
    assert (removed.id, removed.revocation, removed.replaced) == (NAME, STOLEN, True)
    assert caplog.text.count("key is compromised: it is not revoked yet") == 1
    assert caplog.text.count("certificate revoked") == 1
    assert manager.store.storage.keys("compromised/") == manager.store.storage.keys("backoffs/") == []


@pytest.mark.parametrize("retry_after", [None, 4_000])
async def test_what_could_not_even_be_replaced_is_replaced_and_revoked(
    make_manager: MakeManager, issuer: Reluctant, clock: Clock, retry_after: float | None
) -> None:
    """As soon as the CA may be asked for both: no certificate is deleted in the minute before another can be had."""
    manager = make_manager()
    old = await manager.obtain(SUBJECT)
    issuer.error = IssuerUnavailable("away", retry_after=retry_after)
    await left_undone(manager)
    issuer.error = None
    restarted = make_manager()
    backoff = restarted.store.backoff(revocation_scope(NAME))
    assert backoff is not None
    assert backoff.until == clock() + (retry_after or 60)
    restarted.store.save_backoff(restarted.cas[0].directory, Backoff(2, backoff.until + 100, "away"))

    clock.time = backoff.until
    await restarted.make_revocation_retrier().round()
    assert issuer.serials == []
    kept = stored(restarted)
    assert kept is not None
    assert kept.has_same_key_as(old)

    clock.advance(200)
    await restarted.make_revocation_retrier().round()
    new = stored(restarted)
    assert new is not None
    assert not new.has_same_key_as(old)
    assert issuer.serials == [old.leaf.serial_number]


async def test_no_replacement_is_waited_for_always(make_manager: MakeManager, issuer: Reluctant, clock: Clock) -> None:
    """A CA that takes no orders may well revoke; then the name has no certificate, as with who says so himself."""
    manager = make_manager()
    old = await manager.obtain(SUBJECT)
    issuer.error = IssuerUnavailable("away")
    await left_undone(manager)
    issuer.error = None
    for _ in range(60):
        manager.store.save_backoff(manager.cas[0].directory, Backoff(9, clock() + 600, "no orders"))
        await manager.make_revocation_retrier().round()
        clock.advance(60)
    assert issuer.serials == [old.leaf.serial_number]
    assert stored(manager) is None


async def test_what_its_ca_refuses_at_last_is_given_up(
    make_manager: MakeManager, issuer: Reluctant, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """One line says so, and it is not tried again."""
    manager = make_manager()
    await manager.obtain(SUBJECT)
    issuer.deaf = IssuerUnavailable("away")
    await left_undone(manager)
    issuer.deaf = NameRefused("malformed: no such certificate")
    clock.advance(60)
    for _ in range(2):
        await manager.make_revocation_retrier().round()
    assert caplog.text.count("its CA refuses to revoke it: malformed: no such certificate") == 1
    assert manager.store.storage.keys("compromised/") == []


async def test_what_has_expired_needs_no_revocation(
    make_manager: MakeManager,
    issuer: Reluctant,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is tried until the certificate expires."""
    monkeypatch.setattr("mitmproxy_acme.lifecycle.cautious_clock._PATIENCE", 0.0)
    manager = make_manager()
    old = await manager.obtain(SUBJECT)
    issuer.deaf = IssuerUnavailable("away")
    await left_undone(manager)
    tries = issuer.tries
    clock.time = old.not_after - 1
    await manager.make_revocation_retrier().round()
    assert issuer.tries == tries + 1
    clock.time = old.not_after + 600
    for _ in range(2):
        await manager.make_revocation_retrier().round()
    assert issuer.tries == tries + 1
    assert caplog.text.count("it expired before its CA could revoke it") == 1


async def test_node_whose_clock_is_ahead_gives_no_revocation_up(
    make_manager: MakeManager, memory: Memory, issuer: Reluctant, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the one that is told of it nor another forgets the certificate because it takes it for expired."""
    uptime, wrong = Clock(7.0), Clock(EPOCH + 365 * DAY)
    ahead, right = manager_on(memory, wrong, issuer, monotonic=uptime), make_manager()
    old = await right.obtain(SUBJECT)
    issuer.deaf = IssuerUnavailable("away")
    with pytest.raises(IssuanceError):
        await ahead.revoke(NAME, STOLEN)

    for _ in range(48):
        right.nodes.heartbeat(right.node, clock())
        await ahead.make_revocation_retrier().round()
        for each in (clock, wrong, uptime):
            each.advance(1_800)
    clock.advance(2 * DAY)
    assert "revocation_given_up" not in {getattr(record, "event", "") for record in caplog.records}

    issuer.deaf = None
    for _ in range(4):  # what the other clock has put off lasts from when it is first read
        await right.make_revocation_retrier().round()
        clock.advance(120)
    assert old.leaf.serial_number in issuer.serials
    await ahead.close()


async def test_stolen_key_of_another_proxys_name_is_left_to_it(memory: Memory, clock: Clock, issuer: Reluctant) -> None:
    """It has no certificate to put in the place; and who said it here is told that it is not tried again."""
    first = manager_on(memory, clock, issuer)
    await first.obtain(SUBJECT)
    other = manager_on(memory, clock, issuer, acme_domains=("elsewhere.test",))
    issuer.deaf = IssuerUnavailable("away")
    with pytest.raises(IssuanceError, match="is neither replaced nor revoked yet; try again later: away"):
        await other.revoke(NAME, STOLEN)
    issuer.deaf = None
    await other.make_revocation_retrier().round()
    assert issuer.serials == []
    await first.make_revocation_retrier().round()
    assert len(issuer.serials) == 1
    assert stored(first) is not None


async def test_command_under_way_is_not_interfered_with(make_manager: MakeManager, issuer: Reluctant) -> None:
    """While a person's request is carried out no node revokes what is still served."""
    manager, other = make_manager(), make_manager()
    old = await manager.obtain(SUBJECT)
    issuer.go = asyncio.Event()
    issuer.begun.clear()
    command = asyncio.get_running_loop().create_task(manager.revoke(NAME, STOLEN))
    await issuer.begun.wait()
    assert manager.store.compromised(NAME) is not None
    for node in (other, manager):
        await asyncio.wait_for(node.make_revocation_retrier().round(), 5)
    assert issuer.serials == []
    issuer.go.set()
    assert (await command).replaced
    assert issuer.serials == [old.leaf.serial_number]


async def test_rounds_of_unfinished_revocations_have_rests(
    make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each round lists what is stored: without anything to do, one in ten seconds is enough."""
    rests = list[float]()

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        if len(rests) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", rest)
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(20):
            await make_manager().make_revocation_retrier().run()
    assert min(rests) >= 10


async def test_node_that_begins_before_the_backoff_ends_leaves_the_ca_alone(
    make_manager: MakeManager, issuer: Reluctant, clock: Clock
) -> None:
    """The round may have read an older list: what another node has put off since then stays put off."""
    manager, other = make_manager(), make_manager()
    await manager.obtain(SUBJECT)
    issuer.deaf = IssuerUnavailable("away")
    await left_undone(manager)
    tries = issuer.tries
    assert await other._parts.revoker.finish(NAME) is None
    assert issuer.tries == tries
    clock.advance(61)
    with pytest.raises(IssuanceError):
        await other._parts.revoker.finish(NAME)
    assert issuer.tries == tries + 1


async def test_failure_of_the_name_does_not_put_off_the_end_of_a_stolen_key(
    make_manager: MakeManager, issuer: Reluctant, clock: Clock
) -> None:
    """Its CA is well: it is asked for another certificate, and then to revoke, whatever happened to a visitor."""
    manager = make_manager()
    old = await manager.obtain(SUBJECT)
    issuer.error = IssuerUnavailable("away")
    await left_undone(manager)
    issuer.error = None
    clock.advance(61)
    restarted = make_manager()
    restarted.store.delete_backoff(restarted.cas[0].directory)
    failed = Backoff(3, clock() + 3_600, "no such host")
    restarted.store.save_backoff(name_scope(NAME, restarted.cas[0].directory), failed)
    assert await restarted._parts.revoker.finish(NAME) is not None
    assert issuer.serials == [old.leaf.serial_number]


async def test_storage_without_leases_stops_no_revocation(
    make_manager: MakeManager, issuer: Reluctant, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key is compromised now: that another node may revoke it too does no harm."""
    manager = make_manager()
    old = await manager.obtain(SUBJECT)
    issuer.refusal = ChallengeFailed("no such name")
    swap = memory.swap

    def refuse(key: str, *values: Any, **how: Any) -> bool:
        if key.startswith("leases/"):
            raise StorageUnavailable("the disk is full")
        return swap(key, *values, **how)

    monkeypatch.setattr(memory, "swap", refuse)
    await manager.revoke(NAME, STOLEN)
    assert issuer.serials == [old.leaf.serial_number]


@pytest.mark.parametrize("broken", ["save_compromised", "save_backoff"])
async def test_person_is_told_if_nothing_is_retried_automatically(
    make_manager: MakeManager, issuer: Reluctant, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Where it could not be kept aside, or its wait not be stored, no node tries again."""
    manager = make_manager()
    await manager.obtain(SUBJECT)
    issuer.deaf = IssuerUnavailable("away")

    def down(*_: object) -> None:
        raise StorageUnavailable("down")

    monkeypatch.setattr(manager.store, broken, down)
    with pytest.raises(IssuanceError, match="yet; try again later: away"):
        await manager.revoke(NAME, STOLEN)


async def test_nothing_is_revoked_in_the_moment_of_its_end(
    make_manager: MakeManager, issuer: Reluctant, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has expired then."""
    monkeypatch.setattr("mitmproxy_acme.lifecycle.cautious_clock._PATIENCE", 0.0)
    manager = make_manager()
    old = await manager.obtain(SUBJECT)
    issuer.deaf = IssuerUnavailable("away")
    await left_undone(manager)
    tries, clock.time = issuer.tries, old.not_after
    assert await manager._parts.revoker.finish(NAME) is None
    assert issuer.tries == tries
    assert manager.store.compromised(NAME) is None


async def test_revocation_that_waits_holds_up_no_other(
    make_manager: MakeManager, issuer: Reluctant, clock: Clock
) -> None:
    """The names behind it are tried in the same round."""
    manager, later = make_manager(), ServerName("b.example.test")
    for name in (NAME, later):
        await manager.obtain(Subject((name,)))
    issuer.deaf = IssuerUnavailable("away")
    await left_undone(manager)
    clock.advance(30)
    with pytest.raises(IssuanceError, match="retried automatically"):
        await manager.revoke(later, STOLEN)
    manager.store.save_backoff(revocation_scope(NAME), Backoff(1, clock() + 600, "away"))
    issuer.deaf = None
    clock.advance(61)
    await manager.make_revocation_retrier().round()
    assert [id for id, _ in issuer.revoked] == [later]


@pytest.mark.parametrize("error", [StorageUnavailable("down"), RuntimeError("a fault")])
async def test_round_that_fails_does_not_end_the_rounds(
    make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """The storage's trouble is told, a fault of ours is logged, and the next round comes after the usual rest."""
    manager, rests = make_manager(), list[float]()
    retrier = manager.make_revocation_retrier()

    async def fail() -> float:
        raise error

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        if len(rests) == 2:
            raise asyncio.CancelledError

    monkeypatch.setattr(retrier, "round", fail)
    monkeypatch.setattr(asyncio, "sleep", rest)
    with pytest.raises(asyncio.CancelledError):
        await retrier.run()
    assert rests == [10.0, 10.0]
    down = isinstance(error, StorageUnavailable)
    assert manager.health.trouble_now == ("down" if down else None)
    assert ("the round of unfinished revocations failed" in caplog.text) is not down


async def test_names_of_other_proxies_hold_up_none_of_ours(memory: Memory, clock: Clock, issuer: Reluctant) -> None:
    """They come first in the list, and are passed over."""
    first = manager_on(memory, clock, issuer)
    foreign = ServerName("a.elsewhere.test")
    first.store.save_compromised(make_certificate([foreign], now=clock()))
    old = await first.obtain(SUBJECT)
    first.store.save_compromised(old)
    await first.make_revocation_retrier().round()
    assert [id for id, _ in issuer.revoked] == [NAME]
    assert first.store.compromised(foreign) is not None
    await first.close()


async def test_sealed_note_of_a_compromised_key_stops_no_revocation(
    make_manager: MakeManager, issuer: Reluctant, memory: Memory
) -> None:
    """Another proxy kept it aside, with a key that this node lacks."""
    manager = make_manager()
    old = await manager.obtain(SUBJECT)
    key = f"compromised/{NAME}"
    memory.put(key, RecordCipher([Fernet.generate_key().decode()]).seal(key, b"{}"))
    await manager.revoke(NAME, STOLEN)
    assert issuer.serials == [old.leaf.serial_number]


@pytest.mark.parametrize("record", [b"", b"7", b"{}", b'{"compromised": 7}', b"[" * 60_000])
def test_note_of_any_shape_is_a_broken_one(memory: Memory, record: bytes) -> None:
    """Not an error of ours."""
    memory.put(f"compromised/{NAME}", record)
    assert Store(memory, RecordCipher(())).compromised(NAME) is None
