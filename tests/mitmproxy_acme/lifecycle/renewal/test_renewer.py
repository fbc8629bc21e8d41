"""When certificates are checked and renewed, through whole lifetimes, with a clock that is moved."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Coroutine

import pytest
from cryptography.fernet import Fernet

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.errors import (
    ChallengeFailed,
    IssuanceError,
    IssuerUnavailable,
    NameNotAllowed,
    SettingsRefused,
)
from mitmproxy_acme.core.events import (
    CertificateExpiring,
    CertificateRemoved,
    ChangedElsewhere,
    CheckScheduled,
    Event,
)
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.renewal import DAY, RenewalInfo
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.lifecycle.ordering.failure_log import FailedAttempt
from mitmproxy_acme.lifecycle.ordering.order_request import OrderRequest
from mitmproxy_acme.lifecycle.renewal import due_checks
from mitmproxy_acme.lifecycle.renewal.renewer import Renewer
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.lease import Lease
from mitmproxy_acme.store.renewal_schedule import RenewalSchedule, ScheduledCheck
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import EPOCH, UNSEALED, AtOnce, Clock, FakeIssuer, make_certificate, manager_on

NAME = ServerName("a.example.test")
KEY = Fernet.generate_key().decode()


async def round_of(renewer: Renewer) -> float:
    """Do one round and everything that it begins; return when the next is due."""
    coming = await renewer._round()
    await renewer._checks.wait_idle()
    return coming


async def live(renewer: Renewer, clock: Clock, seconds: float) -> None:
    """Let time pass as ``run`` would, in rests of at most half a minute, but skip the rests in which nothing is due."""
    end = clock() + seconds
    while clock() < end:
        await round_of(renewer)
        keys = RenewalSchedule(renewer._store.storage)
        coming = min((entry.at for entry in keys.due_by(end) if entry.at > clock()), default=end)
        clock.time = min(max(coming, clock() + 1), end)


@pytest.mark.parametrize(
    ("lifetime", "lives", "orders"),
    [(60, 600, 20), (3_600, 36_000, 20), (6 * DAY, 60 * DAY, 20), (45 * DAY, 300 * DAY, 10), (90 * DAY, 600 * DAY, 10)],
)
async def test_renewed_through_many_lives(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock, lifetime: float, lives: float, orders: int
) -> None:
    """Certificates of a minute or an hour, and of 6, 45 and 90 days, are renewed in time, and not more often."""
    issuer.lifetime = lifetime
    manager = make_manager(threads=AtOnce())
    renewer = manager.make_renewer()
    await manager.certificate_for(NAME, on_demand=True)

    await live(renewer, clock, lives)

    assert manager.cache.get(NAME) is not None
    assert orders <= len(issuer.orders) <= orders + 1
    assert all(replaced is not None for replaced in issuer.replaced[1:])


class Suggesting(FakeIssuer):
    """Suggests to renew when three fifths of a life are over."""

    async def renewal_info(self, certificate: Certificate, now: float) -> RenewalInfo | None:
        start = certificate.not_before + 0.6 * certificate.lifetime
        self.window = (start, start + 0.05 * certificate.lifetime)
        return await super().renewal_info(certificate, now)


@pytest.mark.parametrize("lifetime", [3_600, 160 * 3_600])
async def test_short_lives_are_renewed_when_the_ca_suggests(memory: Memory, clock: Clock, lifetime: float) -> None:
    """Twenty lives of an hour, or of Let's Encrypt's profile for addresses: each served to its window, and not beyond.

    No one is told that one expires, and nothing is left on the calendar but one entry.
    """
    issuer, address = Suggesting(clock, lifetime=lifetime), ServerName("2001:db8::1")
    manager = manager_on(memory, clock, issuer, threads=AtOnce(), acme_ip_certificates=True)
    renewer, heard = manager.make_renewer(), list[Event]()
    await manager.certificate_for(address, on_demand=True)
    manager.events.subscribe(heard.append)

    for _ in range(200):
        await live(renewer, clock, lifetime / 10)
        held = manager.cache.get(address)
        assert held is not None
        assert clock() - held.not_before <= 0.66 * lifetime + 60

    assert 30 <= len(issuer.orders) <= 34
    assert not [event for event in heard if isinstance(event, CertificateExpiring)]
    assert len(list(manager.schedule.due_by(clock() + lifetime))) == 1


async def test_window_of_the_ca_is_asked_and_obeyed(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock
) -> None:
    """The CA is asked when its Retry-After has passed, and its window moves the renewal."""
    manager = make_manager(threads=AtOnce())
    renewer = manager.make_renewer()
    await manager.certificate_for(NAME, on_demand=True)
    issuer.window = (EPOCH + 70 * DAY, EPOCH + 71 * DAY)
    await live(renewer, clock, 10 * DAY)
    assert 9 <= issuer.asked <= 11

    issuer.window = (clock() - 2, clock() - 1)
    await live(renewer, clock, DAY)
    assert len(issuer.orders) >= 2
    assert issuer.replaced[1] is not None


async def test_window_that_is_over_replaces_at_once(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """As after a revocation: the node that hears of it orders in the same check, and one line says why."""
    manager = make_manager()
    old = await manager.certificate_for(NAME, on_demand=True)
    clock.advance(DAY)
    issuer.window, issuer.explanation = (EPOCH - 2, EPOCH - 1), "https://ca.test/incident"
    issuer.error = IssuerUnavailable("away")
    await round_of(manager.make_renewer())
    assert (issuer.asked, len(issuer.orders)) == (1, 2)
    clock.advance(DAY)
    await round_of(manager.make_renewer())  # the CA is asked anew, and says the same
    assert (issuer.asked, len(issuer.orders)) == (2, 3)
    issuer.error, issuer.window = None, (clock() + 60 * DAY, clock() + 61 * DAY)
    clock.advance(3_600)

    await round_of(manager.make_renewer())

    assert old is not None
    assert [replaced.fingerprint for replaced in issuer.replaced[1:] if replaced] == [old.fingerprint] * 3
    assert manager.cache.get(NAME) not in (None, old)
    assert caplog.text.count("its renewal window is over, so it is replaced at once") == 1
    assert caplog.text.count("the CA explains its renewal window at https://ca.test/incident") == 1
    assert issuer.asked == 2  # what it said holds until it is to be asked again


async def test_operator_who_chose_a_time_asks_no_window(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock
) -> None:
    """With ``acme_renew_before=14d`` the certificate is renewed on day 76, and the CA is not asked when."""
    manager = make_manager(threads=AtOnce(), acme_renew_before="14d")
    await manager.certificate_for(NAME, on_demand=True)
    renewer = manager.make_renewer()
    await live(renewer, clock, 75 * DAY)
    assert (len(issuer.orders), issuer.asked) == (1, 0)
    await live(renewer, clock, 2 * DAY)
    assert (len(issuer.orders), issuer.asked) == (2, 0)


async def test_failed_renewal_keeps_the_old_certificate_and_warns(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """While renewals fail the old one is served, a person is warned in the last third, and success follows."""
    manager = make_manager(threads=AtOnce())
    renewer = manager.make_renewer()
    old = await manager.certificate_for(NAME, on_demand=True)
    issuer.error = ChallengeFailed("dns: no such host")
    caplog.set_level(logging.WARNING)
    await live(renewer, clock, 65 * DAY)
    assert manager.cache.get(NAME) is old
    assert "not renewed, and the certificate expires in 26 days" in caplog.text
    # At the first failure it has just become due, with a third of its time left.
    assert caplog.text.count("not renewed, and the certificate expires in") == len(issuer.orders) - 2
    # 1 min, 10 min, 100 min, then a day: what the backoff allows, and no more
    assert 7 <= len(issuer.orders) <= 10

    issuer.error = None
    await live(renewer, clock, 2 * DAY)
    assert manager.cache.get(NAME) is not old


@pytest.mark.parametrize(
    ("lifetime", "error"),
    [
        (3_600, ChallengeFailed("dns")),
        (3_600, IssuerUnavailable("away")),
        (3_600, SettingsRefused("no")),
        (6 * DAY, ChallengeFailed("dns")),
    ],
    ids=str,
)
async def test_renewal_that_failed_for_most_of_its_time_comes_in_time(
    make_manager: MakeManager,
    issuer: FakeIssuer,
    clock: Clock,
    lifetime: float,
    error: IssuanceError,
) -> None:
    """If the cause is fixed five minutes before the end, the certificate is replaced, with few orders."""
    issuer.lifetime = lifetime
    manager = make_manager(threads=AtOnce())
    renewer = manager.make_renewer()
    old = await manager.certificate_for(NAME, on_demand=True)
    assert old is not None
    issuer.error = error
    await live(renewer, clock, lifetime - 300)
    tries = len(issuer.orders) - 1
    issuer.error = None

    await live(renewer, clock, 240)

    renewed = manager.cache.get(NAME)
    assert renewed is not None
    assert renewed.not_after > old.not_after
    if isinstance(error, ChallengeFailed):
        assert tries <= 60


async def test_name_whose_certificate_has_ended_waits_as_before(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock
) -> None:
    """No node serves it, and the backoff continues as that of a name without a certificate."""
    issuer.lifetime = 3_600
    manager = make_manager(threads=AtOnce())
    await manager.certificate_for(NAME, on_demand=True)
    issuer.error = ChallengeFailed("dns")
    await live(manager.make_renewer(), clock, 3_700)
    backoff = manager.store.backoff(NAME)
    assert backoff is not None
    clock.time = max(backoff.until, clock())
    with pytest.raises(ChallengeFailed):
        await manager.certificate_for(NAME, on_demand=True)
    again = manager.store.backoff(NAME)
    assert again is not None
    assert again.until == clock() + DAY


async def test_permission_that_is_refused_is_asked_for_again_in_time(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a certificate of an hour, an hour later would be too late."""
    issuer.lifetime = 3_600
    manager = make_manager(threads=AtOnce())
    old = await manager.certificate_for(NAME, on_demand=True)
    assert old is not None
    renewer, asked, allowed_at = manager.make_renewer(), list[float](), old.not_after - 300

    class Asking:
        async def obtain(self, request: OrderRequest) -> Certificate:
            asked.append(clock())
            if clock() < allowed_at:
                raise NameNotAllowed("acme_ask says no")
            return await manager.obtain(request.subject, request.replacing)

    monkeypatch.setattr(renewer, "_obtainer", Asking())
    await live(renewer, clock, 3_590)
    assert 5 <= len(asked) <= 20
    assert manager.cache.get(NAME) not in (None, old)


async def test_two_nodes_renew_once(make_manager: MakeManager, issuer: FakeIssuer, clock: Clock) -> None:
    """The node that checks first renews; the other takes what is stored."""
    first, second = make_manager(), make_manager()
    await first.certificate_for(NAME, on_demand=True)
    await second.certificate_for(NAME, on_demand=True)
    clock.advance(61 * DAY)
    await asyncio.gather(round_of(first.make_renewer()), round_of(second.make_renewer()))
    assert len(issuer.orders) == 2


async def test_what_another_node_renewed_is_taken_up(make_manager: MakeManager, clock: Clock) -> None:
    """A node does not serve a certificate to its last second when the next one is stored."""
    first, second = make_manager(), make_manager()
    for node in (first, second):
        await node.certificate_for(NAME, on_demand=True)
    old = second.cache.get(NAME)
    assert old is not None
    clock.advance(61 * DAY)
    await round_of(first.make_renewer())
    assert second.cache.get(NAME) is old
    await round_of(second.make_renewer())
    newer, renewed = second.cache.get(NAME), first.cache.get(NAME)
    assert newer is not None
    assert renewed is not None
    assert newer.fingerprint == renewed.fingerprint != old.fingerprint


async def test_managed_certificates_are_held_from_the_start(make_manager: MakeManager, issuer: FakeIssuer) -> None:
    """Each entry is obtained in the first round, and none is ordered again at the next start."""
    names = tuple(f"m{n}.test" for n in range(20))
    await round_of(make_manager(acme_certificates=names).make_renewer())
    again = make_manager(acme_certificates=names)
    await round_of(again.make_renewer())
    assert len(issuer.orders) == 20
    assert all(again.cache.get(ServerName(name)) for name in names)


async def test_managed_certificate_that_another_node_deleted_is_obtained_again(
    make_manager: MakeManager, issuer: FakeIssuer
) -> None:
    """A change by another node is checked: a deleted certificate is ordered, a renewed one is not."""
    manager = make_manager(acme_certificates=("a.example.test",))
    renewer = manager.make_renewer()
    await round_of(renewer)
    manager.events.publish(ChangedElsewhere(frozenset({NAME, ServerName("b.example.test")})))
    await round_of(renewer)
    assert len(issuer.orders) == 1

    await make_manager().delete(NAME)
    manager.events.publish(ChangedElsewhere(frozenset({NAME})))
    await round_of(renewer)

    assert [subject.id for subject in issuer.orders] == [NAME, NAME]


async def test_managed_certificate_is_tried_again_when_its_backoff_ends(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock
) -> None:
    """A managed name whose DNS comes later gets its certificate without a visit."""
    manager = make_manager(acme_certificates=("m.test",))
    renewer = manager.make_renewer()
    issuer.error = ChallengeFailed("dns")
    assert await round_of(renewer) <= clock() + 60
    clock.advance(30)
    await round_of(renewer)
    assert len(issuer.orders) == 1
    issuer.error = None
    clock.advance(31)
    await round_of(renewer)
    assert manager.cache.get(ServerName("m.test")) is not None


async def test_overdue_certificate_is_renewed_at_the_start(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock, memory: Memory
) -> None:
    """A managed certificate that became due while the proxy was off, and is not in the schedule, is renewed."""
    old = make_certificate(["m.test"], now=clock() - 80 * DAY)
    assert Store(memory, UNSEALED).replace(Store(memory, UNSEALED).slot(old.id), old)
    manager = make_manager(acme_certificates=("m.test",))
    renewer = manager.make_renewer()
    await round_of(renewer)
    await round_of(renewer)
    assert len(issuer.orders) == 1
    assert manager.cache.get(ServerName("m.test")) is not old


async def test_killed_between_calendar_and_certificate(
    make_manager: MakeManager, issuer: FakeIssuer, memory: Memory, clock: Clock
) -> None:
    """An entry whose certificate is not stored yet stays for a day, and harms nothing."""
    RenewalSchedule(memory).add(ScheduledCheck(NAME, clock()))
    renewer = make_manager().make_renewer()
    await round_of(renewer)
    assert memory.keys("calendar/") != []
    clock.advance(DAY + 1)
    await round_of(renewer)
    assert (memory.keys("calendar/"), issuer.orders) == ([], [])


async def test_names_of_other_proxies_in_the_same_storage_are_theirs(
    make_manager: MakeManager, issuer: FakeIssuer, memory: Memory, clock: Clock
) -> None:
    """A proxy with other options neither renews nor unlists what it does not serve."""
    await make_manager().certificate_for(NAME, on_demand=True)
    entries = memory.keys("calendar/")
    clock.advance(12 * 3_600)
    await round_of(make_manager(acme_domains=("other.test",)).make_renewer())
    assert len(entries) == 1
    assert memory.keys("calendar/") == entries


async def test_sealed_certificate_stays_on_the_calendar_and_costs_a_read_a_round(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock, memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    """A node without the key neither renews nor unlists, says it once, and rests between rounds; one with it renews."""
    await make_manager(acme_storage_key=KEY).certificate_for(NAME, on_demand=True)
    entries = memory.keys("calendar/")
    caplog.set_level(logging.WARNING)
    caplog.clear()
    clock.advance(80 * DAY)
    renewer = make_manager().make_renewer()
    for _ in range(10):
        assert await round_of(renewer) >= clock() + 30
        clock.advance(30)
    assert (memory.keys("calendar/"), len(issuer.orders)) == (entries, 1)
    assert len(caplog.records) == 1
    assert f"certificates/{NAME} is sealed" in caplog.text

    await round_of(make_manager(acme_storage_key=KEY).make_renewer())
    assert len(issuer.orders) == 2


async def test_sealed_managed_certificate_is_held_once_it_can_be_opened(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock, memory: Memory
) -> None:
    """It is tried again each minute, so a record that was sealed anew by a known key needs no restart and no order."""
    name = ServerName("m.test")
    certificate = make_certificate([name])
    sealed = Store(memory, RecordCipher([KEY]))
    assert sealed.replace(sealed.slot(name), certificate)
    manager = make_manager(acme_certificates=(name,))
    renewer = manager.make_renewer()
    assert await round_of(renewer) >= clock() + 30
    assert manager.cache.get(name) is None
    assert Store(memory, UNSEALED).replace(sealed.slot(name), certificate)
    clock.advance(30)
    await round_of(renewer)  # a minute has not passed yet
    assert manager.cache.get(name) is None
    clock.advance(30)
    await round_of(renewer)
    assert manager.cache.get(name) is not None
    assert issuer.orders == []


async def test_wrong_storage_key_is_said_in_the_first_round(
    make_manager: MakeManager, memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    """One line before any visitor, for what is stored first; not with every round, and none where the key is right."""
    sealed = Store(memory, RecordCipher([KEY]))
    for n in range(3):
        name = ServerName(f"n{n}.example.test")
        assert sealed.replace(sealed.slot(name), make_certificate([name]))
    renewer = make_manager().make_renewer()
    for _ in range(3):
        await round_of(renewer)
    await round_of(make_manager(acme_storage_key=KEY).make_renewer())
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "certificates/n0.example.test is sealed but acme_storage_key is not set" in caplog.text


async def test_on_demand_name_that_died_is_forgotten(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock, memory: Memory
) -> None:
    """A name that cannot be renewed for long is dropped a day after its end, not tried for ever."""
    manager = make_manager(threads=AtOnce())
    renewer = manager.make_renewer()
    await manager.certificate_for(NAME, on_demand=True)
    issuer.error = ChallengeFailed("dns")
    await live(renewer, clock, 100 * DAY)
    assert memory.keys("calendar/") == []
    orders = len(issuer.orders)
    await live(renewer, clock, 10 * DAY)
    assert len(issuer.orders) == orders


async def test_pass_costs_what_is_due(
    make_manager: MakeManager, memory: Memory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a thousand certificates for later, many of them in this hour, a round reads one page and no certificate."""
    calendar = RenewalSchedule(memory)
    for n in range(1_000):
        calendar.add(ScheduledCheck(ServerName(f"n{n}.example.test"), clock() + 120 + n * 10))
    reads = []
    monkeypatch.setattr(memory, "get", lambda key: reads.append(key))
    await round_of(make_manager().make_renewer())
    assert reads == []


async def test_name_that_two_nodes_listed_twice_is_listed_once_again(
    make_manager: MakeManager, issuer: FakeIssuer, memory: Memory, clock: Clock
) -> None:
    """Two nodes that check at the same moment may move an entry to two minutes; the next check merges them."""
    manager = make_manager()
    await manager.certificate_for(NAME, on_demand=True)
    calendar = RenewalSchedule(memory)
    (listed,) = calendar.due_by(clock() + DAY)
    minute = (listed.at // 60 + 1) * 60
    calendar.move(listed, minute - 1)
    later, of_others = ScheduledCheck(NAME, minute + 1), ServerName("other.test")
    calendar.add(later)
    for at in (minute - 1, minute + 1):
        calendar.add(ScheduledCheck(of_others, at))
    clock.time = minute - 1
    await round_of(manager.make_renewer())
    assert [entry for entry in calendar.due_by(clock() + DAY) if entry.id == NAME] == [later]
    assert len([key for key in memory.keys("calendar/") if key.endswith(of_others)]) == 2

    clock.time = later.at
    await round_of(manager.make_renewer())
    assert len([key for key in memory.keys("calendar/") if key.endswith(NAME)]) == 1
    assert len(issuer.orders) == 1


@pytest.mark.parametrize(("entries", "rests"), [(100, []), (101, [3.0])])
async def test_round_that_reads_much_is_not_made_for_each_entry(
    make_manager: MakeManager,
    memory: Memory,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    entries: int,
    rests: list[float],
) -> None:
    """Where very many entries are close together the schedule is read every few seconds; few are checked in time."""
    for n in range(entries):
        RenewalSchedule(memory).add(ScheduledCheck(ServerName(f"n{n}.example.test"), clock() + 20))
    rested = []

    async def rest(seconds: float) -> None:
        rested.append(seconds)

    monkeypatch.setattr("mitmproxy_acme.lifecycle.renewal.renewer.asyncio.sleep", rest)
    running = asyncio.ensure_future(make_manager().make_renewer().run())
    await asyncio.wait([running], timeout=0.1)
    running.cancel()
    assert rested == rests


async def test_run_wakes_for_a_certificate_that_is_due_sooner(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock
) -> None:
    """A short certificate that is ordered while the renewer rests for half a minute is not overslept."""
    manager = make_manager()
    running = asyncio.ensure_future(manager.make_renewer().run())
    await asyncio.sleep(0.05)
    issuer.lifetime = 2  # looked at first after a tenth of it at most, and due after half
    await manager.certificate_for(NAME, on_demand=True)
    clock.advance(1)
    await asyncio.sleep(0.4)
    running.cancel()
    assert len(issuer.orders) == 2


async def test_what_is_due_in_the_first_moments_of_an_hour_is_not_overslept(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock
) -> None:
    """The rest before a full hour ends when something listed under the next hour is due."""
    clock.time = EPOCH - 10
    issuer.lifetime = 30
    manager = make_manager(acme_renew_before="15s")
    await manager.certificate_for(NAME, on_demand=True)
    assert await round_of(manager.make_renewer()) == EPOCH + 5


async def test_what_is_scheduled_during_a_round_is_not_overslept(
    make_manager: MakeManager, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate that is stored just after a round has read the schedule begins another round."""
    manager = make_manager()
    renewer = manager.make_renewer()
    rounds: list[float] = []

    async def scheduled_late() -> float:
        rounds.append(clock())
        if len(rounds) == 1:
            manager.events.publish(CheckScheduled(clock() + 2))
        return clock() + 30

    monkeypatch.setattr(renewer, "_round", scheduled_late)
    running = asyncio.ensure_future(renewer.run())
    await asyncio.sleep(0.05)
    running.cancel()
    assert len(rounds) == 2


async def test_ca_that_is_down_is_not_asked_for_windows(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock
) -> None:
    """While the CA backs off it is not asked when to renew."""
    manager: Manager = make_manager(threads=AtOnce())
    renewer = manager.make_renewer()
    subject = manager.config.subject(NAME)
    await manager.certificate_for(NAME, on_demand=True)
    assert subject is not None
    await manager.backoffs.record(
        subject, IssuerUnavailable("down", retry_after=30 * DAY), FailedAttempt("ca", issuer.directory, 0.0, "n")
    )
    await live(renewer, clock, 20 * DAY)
    assert issuer.asked == 0


async def test_names_that_wait_for_a_ca_are_spread(make_manager: MakeManager, issuer: FakeIssuer, clock: Clock) -> None:
    """Of many that become due while it is down, no two minutes have most, then or when it is back."""
    manager = make_manager(threads=AtOnce(), acme_renew_before="30d")
    renewer = manager.make_renewer()
    names = [ServerName(f"{number}.example.test") for number in range(30)]
    for name in names:
        await manager.certificate_for(name, on_demand=True)
    clock.time += 60 * DAY + 60
    issuer.error = IssuerUnavailable("away")
    await live(renewer, clock, 660)

    listed = list(RenewalSchedule(manager.store.storage).due_by(clock() + 10 * DAY))
    hours = Counter(int((entry.at - clock()) // 3_600) for entry in listed)

    assert len(listed) == len(names)
    assert len(hours) >= 5
    assert max(hours.values()) < 15
    assert max(entry.at for entry in listed) - clock() < 30 * DAY / 100 + 660


async def test_backlog_is_worked_on_in_parts(make_manager: MakeManager, issuer: FakeIssuer, clock: Clock) -> None:
    """A round begins a bounded number of checks, and the next one goes on; what another node has done is left out."""
    manager = make_manager(acme_renew_before="30d")
    renewer, schedule, most = manager.make_renewer(), manager.schedule, due_checks.MOST_READ
    for number in range(most + 20):
        schedule.add(ScheduledCheck(ServerName(f"{number}.example.test"), clock() - 300.0))
    begun, free = list[ServerName](), asyncio.Event()

    async def check(entry: ScheduledCheck) -> None:
        begun.append(entry.id)
        await free.wait()
        schedule.remove(entry)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(renewer, "_check", check)
        assert await renewer._round() <= clock()
        assert len(renewer._checks) == most
        assert await renewer._round() <= clock() + 60  # nothing is read while so many wait for their turn
        gone = list(renewer._checks.under_way())[-1]
        schedule.remove(ScheduledCheck(gone, clock() - 300.0))
        free.set()
        await renewer._checks.wait_idle()
        await round_of(renewer)
        await round_of(renewer)

    assert gone not in begun
    assert len(begun) == len(set(begun)) == most + 19


async def test_check_is_made_by_one_node(make_manager: MakeManager, issuer: FakeIssuer, clock: Clock) -> None:
    """Three nodes see it at the same moment, and the CA is asked for its window once."""
    managers = [make_manager() for _ in range(3)]
    await managers[0].certificate_for(NAME, on_demand=True)
    renewers = [manager.make_renewer() for manager in managers]
    clock.time += DAY

    await asyncio.gather(*(round_of(renewer) for renewer in renewers))

    assert issuer.asked == 1
    assert len(list(managers[0].schedule.due_by(clock() + DAY))) == 1


async def test_nodes_work_on_a_backlog_in_different_orders(make_manager: MakeManager, clock: Clock) -> None:
    """In the same order each would wait for the leases of the other."""
    manager = make_manager()
    for number in range(100):
        manager.schedule.add(ScheduledCheck(ServerName(f"{number}.example.test"), clock() - 300.0))
    orders = []
    for renewer in (make_manager().make_renewer(), make_manager().make_renewer()):
        await renewer._round()
        orders.append(list(renewer._checks.under_way())[:8])
        await renewer.close()

    assert orders[0] != orders[1]


async def test_ca_that_calls_for_each_renewal_at_once_is_followed_some_times_a_day(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though its certificates began a year ago, and their windows are over: as soon as each is first checked."""

    async def obtain(subject: Subject, replacing: Certificate | None = None) -> Certificate:
        issuer.orders.append(subject)
        return make_certificate(subject.names, now=clock() - 365 * DAY, lifetime=455 * DAY, ca=issuer.directory)

    monkeypatch.setattr(issuer, "obtain", obtain)
    issuer.window = (clock() - 400 * DAY, clock() - 400 * DAY)
    manager = make_manager(threads=AtOnce())
    renewer = manager.make_renewer()
    await manager.certificate_for(NAME, on_demand=True)
    for _ in range(5):
        await round_of(renewer)
    assert len(issuer.orders) == 1
    await live(renewer, clock, DAY)
    assert 4 <= len(issuer.orders) <= 9


async def test_window_that_changes_at_every_look_is_told_once(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A CA cannot fill the log with windows."""
    manager = make_manager(threads=AtOnce())
    renewer = manager.make_renewer()
    await manager.certificate_for(NAME, on_demand=True)
    for day in range(10):
        issuer.window = (clock() + 20 * DAY + day, clock() + 30 * DAY + day)
        issuer.explanation = f"https://ca.test/{day}"
        await live(renewer, clock, DAY)
    assert issuer.asked >= 9
    assert caplog.text.count("explains its renewal window") == 1


async def test_entry_that_was_moved_far_ahead_keeps_no_certificate_from_renewal(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock, memory: Memory
) -> None:
    """As a node does whose clock is a year ahead: what is overdue in memory is checked all the same."""
    manager = make_manager()
    renewer = manager.make_renewer()
    certificate = await manager.certificate_for(NAME, on_demand=True)
    assert certificate is not None
    schedule = RenewalSchedule(memory)
    (entry,) = schedule.due_by(clock() + 90 * DAY)
    schedule.move(entry, clock() + 365 * DAY)

    manager.usage.served[NAME] = certificate  # as a handshake does: the name is not idle
    await manager.usage.flush()
    clock.advance(61 * DAY)
    await round_of(renewer)

    renewed = manager.cache.get(NAME)
    assert renewed is not None
    assert renewed.not_after > certificate.not_after
    assert len(issuer.orders) == 2


async def test_managed_certificate_is_tried_for_when_the_clock_is_set_back(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock
) -> None:
    """What failed while the clock was a year ahead does not wait for a year, but as long as its backoff says."""
    renewer = make_manager(acme_certificates=("m.test",)).make_renewer()
    clock.advance(365 * DAY)
    issuer.error = ChallengeFailed("no route")
    await round_of(renewer)
    issuer.error = None
    clock.advance(-365 * DAY)
    await round_of(renewer)
    assert len(issuer.orders) == 1
    clock.advance(120)
    await round_of(renewer)
    assert len(issuer.orders) == 2


async def test_managed_certificate_that_had_ended_is_back_when_the_clock_is(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock
) -> None:
    """By the wrong clock it left the memory, and with it what a node checks though the schedule does not list it."""
    manager = make_manager(acme_certificates=("m.test",))
    renewer = manager.make_renewer()
    await round_of(renewer)
    issuer.error = ChallengeFailed("no route")
    clock.advance(100 * DAY)
    await round_of(renewer)
    assert manager.cache.held() == {}
    clock.advance(-100 * DAY)
    await round_of(renewer)
    assert list(manager.cache.held()) == ["m.test"]


async def test_unlisted_check_is_not_put_off_when_the_clock_is_set_back(
    make_manager: MakeManager, clock: Clock
) -> None:
    """It was checked while the clock was ten days ahead; the next check is due within two."""
    manager = make_manager(acme_certificates=("m.test",))
    certificate = await manager.certificate_for(ServerName("m.test"), on_demand=True)
    assert certificate is not None
    unlisted = manager.make_renewer()._unlisted
    clock.advance(75 * DAY)
    assert unlisted.find([certificate], [], clock()) == [ScheduledCheck(certificate.id, clock())]
    assert unlisted.find([certificate], [], clock() + DAY) == []
    clock.advance(-10 * DAY)
    assert unlisted.find([certificate], [], clock()) == [ScheduledCheck(certificate.id, clock())]


async def test_certificate_that_waits_for_a_later_window_is_checked_now_and_then(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock
) -> None:
    """It is overdue by our own rule, and not by the CA's: the schedule has it for later, and each round passes it."""
    issuer.window = (clock() + 80 * DAY, clock() + 81 * DAY)
    manager = make_manager()
    renewer = manager.make_renewer()
    await manager.certificate_for(NAME, on_demand=True)
    clock.advance(61 * DAY)
    await round_of(renewer)

    asked = issuer.asked
    for _ in range(100):
        clock.advance(30.0)
        await round_of(renewer)

    assert issuer.asked - asked <= 1
    assert len(issuer.orders) == 1


async def test_window_that_was_heard_holds_while_the_ca_says_nothing(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CA answers no question about windows any more: the certificate is renewed in the one that it told before.

    It is asked again once an hour, and not once a minute: 100,000 certificates would be 1,700 requests a second.
    """
    manager = make_manager(threads=AtOnce())
    renewer = manager.make_renewer()
    await manager.certificate_for(NAME, on_demand=True)
    issuer.window = (EPOCH + 10 * DAY, EPOCH + 10 * DAY + 1)
    await live(renewer, clock, DAY)
    asked = 0

    async def silent(certificate: Certificate, now: float) -> RenewalInfo | None:
        nonlocal asked
        asked += 1
        raise IssuerUnavailable("no answer")

    monkeypatch.setattr(issuer, "renewal_info", silent)
    await live(renewer, clock, 8.5 * DAY)
    assert len(issuer.orders) == 1
    assert 8 * 24 <= asked <= 9 * 24
    await live(renewer, clock, DAY)
    assert len(issuer.orders) == 2


async def test_schedule_is_read_twice_a_minute_whatever_comes_next(
    make_manager: MakeManager, issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other nodes list checks too: a managed name that waits for an hour is no reason to sleep for that."""
    issuer.error = ChallengeFailed("no route", retry_after=3_600)
    renewer, rests = make_manager(acme_certificates=(NAME,)).make_renewer(), list[float]()

    async def rest(woken: Coroutine[None, None, bool], seconds: float) -> None:
        woken.close()
        await renewer._checks.wait_idle()
        rests.append(seconds)
        raise TimeoutError if len(rests) < 4 else asyncio.CancelledError

    monkeypatch.setattr(asyncio, "wait_for", rest)
    with pytest.raises(asyncio.CancelledError):
        await renewer.run()
    assert len(issuer.orders) == 1
    assert rests[1:] == [30.0, 30.0, 30.0]


async def test_entry_that_nobody_has_moved_for_a_day_goes(make_manager: MakeManager, clock: Clock) -> None:
    """Of a name that no proxy has in its options any more, and whose certificate is gone."""
    manager = make_manager()
    renewer, other = manager.make_renewer(), ServerName("www.elsewhere.test")
    manager.schedule.add(ScheduledCheck(other, clock()))
    await round_of(renewer)
    clock.advance(DAY - 120)
    await round_of(renewer)
    assert [entry.id for entry in manager.schedule.due_by(clock())] == [other]
    clock.advance(180)
    await round_of(renewer)
    assert list(manager.schedule.due_by(clock() + DAY)) == []


async def test_entry_of_what_is_just_being_stored_stays(make_manager: MakeManager, clock: Clock) -> None:
    """Another node lists a certificate before it writes it: it must not be unlisted in between."""
    manager = make_manager()
    renewer = manager.make_renewer()
    manager.schedule.add(ScheduledCheck(NAME, clock() - 600))
    await round_of(renewer)
    assert [entry.id for entry in manager.schedule.due_by(clock())] == [NAME]


async def test_check_that_cannot_read_tells_that_the_storage_is_down(
    make_manager: MakeManager, clock: Clock, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the check is made when it is back."""
    manager = make_manager()
    renewer = manager.make_renewer()
    await manager.certificate_for(NAME, on_demand=True)
    await round_of(renewer)
    clock.advance(80 * DAY)

    def down(key: str) -> bytes:
        raise StorageUnavailable("down")

    with monkeypatch.context() as broken:
        broken.setattr(memory, "get", down)
        await round_of(renewer)
    assert manager.health.trouble_now == "down"
    held = manager.cache.get(NAME)
    await round_of(renewer)
    assert manager.cache.get(NAME) is not held


async def test_window_to_be_asked_for_again_does_not_bring_the_check_back_at_once(
    make_manager: MakeManager, clock: Clock
) -> None:
    """The CA is down, so no one asks it; to check each certificate in every round would help no one."""
    manager = make_manager()
    renewer, subject = manager.make_renewer(), manager.config.subject(NAME)
    certificate = await manager.certificate_for(NAME, on_demand=True)
    assert certificate is not None
    assert certificate.renewal_id is not None
    assert subject is not None
    (entry,) = manager.schedule.due_by(clock() + 90 * DAY)
    manager.schedule.move(entry, clock())
    outdated = RenewalInfo(EPOCH + 60 * DAY, EPOCH + 61 * DAY, EPOCH - 1)
    manager.schedule.save_renewal_info(NAME, certificate.renewal_id, outdated)
    await manager.backoffs.record(
        subject, IssuerUnavailable("down"), FailedAttempt("ca", manager.cas[0].directory, 0.0, "n")
    )
    await round_of(renewer)
    assert [entry.at for entry in manager.schedule.due_by(clock() + 90 * DAY)] == [EPOCH + 60]


async def test_few_checks_are_made_at_once(make_manager: MakeManager) -> None:
    """Each may keep a thread of the CA busy: the others wait for their turn."""
    renewer = make_manager().make_renewer()
    begun, turn = list[int](), asyncio.Semaphore(0)

    def check(number: int) -> Callable[[], Coroutine[None, None, None]]:
        async def run() -> None:
            begun.append(number)
            await turn.acquire()

        return run

    for number in range(20):
        renewer._begin(ServerName(f"n{number}.example.test"), check(number))
    for most in (8, 9, 10):
        for _ in range(5):
            await asyncio.sleep(0)
        assert begun == list(range(most))
        turn.release()
    await renewer.close()
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("acme check")] == []


async def test_check_that_cannot_read_its_record_tells_that_the_storage_is_down(
    make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the schedule could be read a moment before."""
    manager = make_manager()
    renewer = manager.make_renewer()

    async def fail() -> None:
        raise StorageUnavailable("down")

    renewer._begin(NAME, fail)
    await renewer._checks.wait_idle()
    assert manager.health.trouble_now == "down"


async def test_check_has_not_failed_for_a_lease_that_cannot_be_freed(
    make_manager: MakeManager, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends by itself; the certificate is checked, and nothing says that the storage is down."""
    manager = make_manager()
    await manager.certificate_for(NAME, on_demand=True)
    clock.advance(DAY)

    def down(lease: Lease) -> None:
        raise StorageUnavailable("down")

    monkeypatch.setattr(Lease, "release", down)
    await round_of(manager.make_renewer())
    assert manager.health.trouble_now is None
    assert len(list(manager.schedule.due_by(clock() + 90 * DAY))) == 1


async def test_managed_name_on_the_schedule_without_a_certificate_is_obtained(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock, memory: Memory
) -> None:
    """As after a deletion that this node has not heard of; a name on demand waits for a client."""
    manager = make_manager(acme_certificates=(NAME,))
    renewer = manager.make_renewer()
    await round_of(renewer)
    assert len(issuer.orders) == 1
    other = ServerName("b.example.test")
    for name in (NAME, other):
        memory.delete(f"certificates/{name}")
        manager.schedule.add(ScheduledCheck(name, clock()))
    manager.cache.forget(NAME)
    for _ in range(2):
        await round_of(renewer)
    assert [subject.id for subject in issuer.orders] == [NAME, NAME]


async def test_time_that_the_operator_chose_is_the_time_of_the_check(make_manager: MakeManager, clock: Clock) -> None:
    """No CA is asked for a window, so there is nothing to look at before."""
    manager = make_manager(acme_renew_before="30d")
    await manager.certificate_for(NAME, on_demand=True)
    (entry,) = manager.schedule.due_by(clock() + 90 * DAY)
    manager.schedule.move(entry, clock())
    await round_of(manager.make_renewer())
    assert [entry.at for entry in manager.schedule.due_by(clock() + 90 * DAY)] == [EPOCH + 60 * DAY]


async def test_round_that_fails_is_followed_by_another(
    make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of ours does not end all renewals; it is logged, and the next round comes after the longest rest."""
    renewer, rests = make_manager().make_renewer(), list[float]()

    async def fail() -> float:
        raise RuntimeError("a fault")

    async def rest(woken: Coroutine[None, None, bool], seconds: float) -> None:
        woken.close()
        rests.append(seconds)
        raise TimeoutError if len(rests) < 3 else asyncio.CancelledError

    monkeypatch.setattr(renewer, "_round", fail)
    monkeypatch.setattr(asyncio, "wait_for", rest)
    with pytest.raises(asyncio.CancelledError):
        await renewer.run()
    assert rests == [30.0, 30.0, 30.0]
    assert caplog.text.count("the renewal round failed") == 3


async def test_event_before_the_first_round_is_no_error(make_manager: MakeManager, clock: Clock) -> None:
    """Other parts of the node begin before the renewer does, whose first round reads everything anyway."""
    renewer = make_manager().make_renewer()
    renewer.happened(CheckScheduled(clock()))
    assert not renewer._woken.is_set()


async def test_check_that_another_node_has_just_made_is_not_made_again(
    make_manager: MakeManager, clock: Clock, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found out under the lease, which is free again at once."""
    manager, listed = make_manager(), [True, False]
    renewer = manager.make_renewer()
    monkeypatch.setattr(RenewalSchedule, "is_listed", lambda *_: listed.pop(0))
    assert renewer._due.claim(ScheduledCheck(NAME, clock())) is None
    assert memory.keys("leases/") == []


@pytest.mark.parametrize("event", [CertificateRemoved(NAME, None, "n"), ChangedElsewhere(frozenset({NAME}))])
async def test_end_of_a_managed_certificate_wakes_the_renewer(make_manager: MakeManager, event: Event) -> None:
    """It is obtained again at once, and not after half a minute; that of a name on demand waits for a client."""
    renewer = make_manager(acme_certificates=(NAME,)).make_renewer()
    renewer.happened(event)
    assert renewer._woken.is_set()
    other = make_manager().make_renewer()
    other.happened(event)
    assert not other._woken.is_set()


async def test_ordinary_window_is_no_news(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Each certificate has one: a line for each would hide the one that matters."""
    manager = make_manager()
    await manager.certificate_for(NAME, on_demand=True)
    issuer.window = (clock() + 60 * DAY, clock() + 61 * DAY)
    clock.advance(DAY)
    await round_of(manager.make_renewer())
    assert issuer.asked == 1
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_storage_key_is_verified_once(make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, and not in each round: it reads many records."""
    manager, verified = make_manager(), list[bool]()
    renewer = manager.make_renewer()

    def note(*, accounts: bool) -> None:
        verified.append(accounts)

    monkeypatch.setattr(manager.store, "verify_keys", note)
    for _ in range(3):
        await round_of(renewer)
    assert verified == [True]
