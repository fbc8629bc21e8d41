"""A CA's Retry-After counts, but no certificate expires because of it, and no name waits for more than a day."""

import pytest

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.core.backoff import Backoff, BackoffSchedule
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.errors import (
    BackingOff,
    ChallengeFailed,
    IssuanceError,
    IssuerUnavailable,
    OfAnotherTime,
    RateLimited,
)
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.lifecycle.ordering.failure_log import FailedAttempt
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import DIRECTORY, UNSEALED, Clock, FakeIssuer, manager_on
from tests.mitmproxy_acme.lifecycle.renewal.test_renewer import live

_A, _B, _C = (Subject((ServerName(f"{letter}.example.test"),)) for letter in "abc")
_WEEK = 7 * DAY
_HOUR = 3_600.0
_DOWN = IssuerUnavailable("503", retry_after=_WEEK)


@pytest.fixture
def manager(memory: Memory, clock: Clock, issuer: FakeIssuer) -> Manager:
    return manager_on(memory, clock, issuer)


def test_wait_that_outlasts_the_certificate_is_halved_until_its_end() -> None:
    """Two days are left, and the CA asks for a week: a bounded number of attempts, the last one near the end."""
    waits, now, previous, tries = BackoffSchedule.parse("1m,10m,100m,1d"), 0.0, None, list[float]()
    while now < 2 * DAY:
        previous = waits.next_backoff(previous, "503", now=now, draw=0.9, at_least=_WEEK, served_until=2 * DAY)
        now = previous.until
        tries.append(now)
    assert tries[0] == DAY
    assert len(tries) < 20
    assert 2 * DAY - tries[-2] < 300


def test_wait_that_ends_in_time_is_believed() -> None:
    """To the second."""
    assert (
        BackoffSchedule.parse("1m").next_backoff(None, "", now=0, draw=0.5, at_least=DAY, served_until=2 * DAY).until
        == DAY
    )
    assert BackoffSchedule.parse("1m").next_backoff(None, "", now=0, draw=0.5, at_least=_WEEK).until == _WEEK


@pytest.mark.parametrize("error", [_DOWN, RateLimited("429", retry_after=_WEEK)], ids=["of the CA", "of the name"])
async def test_one_refusal_costs_no_certificate(
    manager: Manager, issuer: FakeIssuer, clock: Clock, error: IssuanceError
) -> None:
    """Three days are left when the CA refuses once, and asks for a week: it is asked again in time."""
    issuer.lifetime = 6 * DAY
    first, renewer = await manager.obtain(_A), manager.make_renewer()
    issuer.error = error
    await live(renewer, clock, 3 * DAY + _HOUR)
    assert len(issuer.orders) == 2
    issuer.error = None
    await live(renewer, clock, 2 * DAY)
    assert len(issuer.orders) == 3
    served = manager.cache.get(_A.id)
    assert served is not None
    assert served.fingerprint != first.fingerprint


async def test_refusal_of_all_names_costs_no_other_name_its_certificate(
    manager: Manager, issuer: FakeIssuer, clock: Clock
) -> None:
    """The CA asks for a week when another name is ordered; the one that ends before is tried, and no more than that."""
    issuer.lifetime = 6 * DAY
    await manager.obtain(_A)
    renewer = manager.make_renewer()
    await live(renewer, clock, 2 * DAY)
    issuer.error = _DOWN
    with pytest.raises(IssuerUnavailable):
        await manager.obtain(_B)
    before = len(issuer.orders)
    await live(renewer, clock, 3.9 * DAY)
    assert 3 < len(issuer.orders) - before < 20
    issuer.error = None
    await live(renewer, clock, 0.1 * DAY)
    assert manager.cache.get(_A.id) is not None


async def test_names_without_certificates_ask_once_a_day(manager: Manager, issuer: FakeIssuer, clock: Clock) -> None:
    """However long a wait the CA asks for; one name asks for all of them."""
    issuer.error = _DOWN
    for _ in range(3):
        for subject in (_A, _B, _C):
            with pytest.raises(IssuerUnavailable if subject is _A else BackingOff):
                await manager.obtain(subject)
        clock.advance(DAY - 1)
        with pytest.raises(BackingOff):
            await manager.obtain(_B)
        clock.advance(1)
    assert issuer.orders == [_A, _A, _A]


async def test_wait_of_the_ca_holds_where_there_is_time(manager: Manager, issuer: FakeIssuer, clock: Clock) -> None:
    """A certificate of ninety days is not renewed before the time that the CA asked for."""
    certificate: Certificate = await manager.obtain(_A)
    await manager.backoffs.record(_B, _DOWN, FailedAttempt("ca", issuer.directory, 0.0, "n"))
    clock.advance(6 * DAY)
    with pytest.raises(BackingOff):
        await manager.obtain(_A, replacing=certificate)
    clock.advance(DAY)
    assert await manager.obtain(_A, replacing=certificate) is not certificate


async def test_person_need_not_wait(manager: Manager, issuer: FakeIssuer) -> None:
    """Nor does the backoff of a whole CA."""
    await manager.obtain(_A)
    await manager.backoffs.record(_A, _DOWN, FailedAttempt("ca", issuer.directory, 0.0, "n"))
    await manager.renew(_A)
    assert issuer.orders == [_A, _A]


async def test_wait_ends_in_time_where_our_own_clock_is_set_back(
    manager: Manager, issuer: FakeIssuer, clock: Clock
) -> None:
    """This process failed while it was a day ahead, and was then set right: it waits for ten minutes at most."""
    clock.advance(DAY)
    issuer.error = ChallengeFailed("no answer")
    with pytest.raises(ChallengeFailed):
        await manager.obtain(_A)
    clock.advance(-DAY)
    issuer.error = None

    with pytest.raises(BackingOff, match="retry in 60 s"):
        await manager.obtain(_A)
    clock.advance(61)
    assert await manager.obtain(_A)


async def test_wait_of_a_clock_that_is_ahead_lasts_as_long_as_it_was_meant(
    manager: Manager, memory: Memory, issuer: FakeIssuer, clock: Clock
) -> None:
    """A node whose clock is a day ahead fails for a name, and waits ten minutes: so does this one, and no day.

    To read the record again does not begin the wait again.
    """
    ahead = clock.time + DAY
    Store(memory, UNSEALED).save_backoff(_A.name, Backoff(2, ahead + 600.0, "no answer", since=ahead), DAY)
    for _ in range(2):
        with pytest.raises(BackingOff, match=r"retry in .+: no answer"):
            await manager.obtain(_A)
        clock.advance(299.0)
    assert issuer.orders == []
    clock.advance(3.0)

    await manager.obtain(_A)

    assert len(issuer.orders) == 1


async def test_wait_of_a_clock_that_is_a_little_ahead_is_taken_as_it_is(
    manager: Manager, memory: Memory, issuer: FakeIssuer, clock: Clock
) -> None:
    ahead = clock.time + 59.0
    Store(memory, UNSEALED).save_backoff(_A.name, Backoff(2, ahead + 600.0, "no answer", since=ahead), DAY)
    for _ in range(2):
        with pytest.raises(BackingOff):
            await manager.obtain(_A)
        clock.advance(329.0)
    clock.advance(2.0)
    await manager.obtain(_A)
    assert len(issuer.orders) == 1


async def test_wait_that_was_moved_stays_where_it_is(
    manager: Manager, memory: Memory, issuer: FakeIssuer, clock: Clock
) -> None:
    """When the time comes at which it was to begin by the other clock, it does not begin again."""
    ahead = clock.time + 600.0
    Store(memory, UNSEALED).save_backoff(_A.name, Backoff(2, ahead + 580.0, "no answer", since=ahead), DAY)
    with pytest.raises(BackingOff):
        await manager.obtain(_A)
    clock.advance(581.0)
    await manager.obtain(_A)
    assert len(issuer.orders) == 1


async def test_clock_that_is_wrong_keeps_no_other_node_from_a_ca(make_manager: MakeManager, issuer: FakeIssuer) -> None:
    """The certificate has ended by the clock of one node, which waits; the CA issues for all others."""
    wrong, right = make_manager(), make_manager()
    issuer.error = OfAnotherTime("the CA delivered a certificate that expired 24 h ago")
    with pytest.raises(OfAnotherTime):
        await wrong.obtain(_A)
    issuer.error = None
    with pytest.raises(BackingOff):
        await wrong.obtain(_B)
    await right.obtain(_A)
    assert len(issuer.orders) == 2


def test_limit_that_is_used_up_is_waited_for_as_long_though_the_clock_is_set_back(
    manager: Manager, clock: Clock
) -> None:
    """Nothing has failed, and the wait is in memory only; the clock was a day ahead."""
    clock.advance(DAY)
    manager.backoffs.defer(_A, "5 certificates are used up", clock() + 600.0, attempt())
    clock.advance(-DAY)
    assert (backoff := manager.backoffs.active_backoff(_A)) is not None
    assert backoff.until == clock() + 600.0
    clock.advance(600.0)
    assert manager.backoffs.active_backoff(_A) is None


_CA = DIRECTORY


def attempt() -> FailedAttempt:
    return FailedAttempt("ca", _CA, 0.0, "n")


async def test_success_says_whether_the_ca_had_failed(manager: Manager) -> None:
    """So that its return is told once."""
    assert not await manager.backoffs.record_success(_A, _CA)
    await manager.backoffs.record(_B, IssuerUnavailable("down"), attempt())
    assert await manager.backoffs.record_success(_A, _CA)
    assert not await manager.backoffs.record_success(_A, _CA)


async def test_name_that_was_reset_has_failed_all_the_same(manager: Manager, memory: Memory) -> None:
    """Here, or on another node: it is rehearsed before its CA is asked again."""
    for subject, where in ((_A, "memory"), (_B, "storage")):
        await manager.backoffs.record(subject, ChallengeFailed("no"), attempt())
        if where == "memory":
            memory.delete(f"backoffs/{subject.name}")
        else:
            manager.backoffs._known.forget(subject.name)
        await manager.backoffs.reset(subject)
        assert manager.backoffs.active_backoff(subject) is None
        assert manager.backoffs.has_failed(subject)
    assert not manager.backoffs.has_failed(_C)


async def test_backoff_that_cannot_be_stored_counts_here(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And ends with this process: the log says so."""

    def down(*_: object) -> None:
        raise StorageUnavailable("down")

    monkeypatch.setattr(manager.store, "save_backoff", down)
    await manager.backoffs.record(_A, ChallengeFailed("no"), attempt())
    assert manager.backoffs.active_backoff(_A) is not None
    assert f"the backoff of {_A.name} is not stored, and ends with this process: down" in caplog.text


def test_data_node_shows_a_failure_at_any_ca(memory: Memory, clock: Clock) -> None:
    """It does not know which CAs the cluster asks."""
    data = manager_on(memory, clock, acme_role="data", acme_tos_accepted=False)
    failed = Backoff(1, clock() + 60, "no")
    stored = {"b.example.test": failed, f"{_A.name}@ca": failed, f"x{_C.name}@ca": failed}
    assert data.backoffs.of_name(_A.name, stored) == failed
    assert data.backoffs.of_name(_B.name, stored) == failed
    assert data.backoffs.of_name(_C.name, stored) is None
    assert set(data.backoffs.of_names(stored)) >= {_A.name, _B.name}


def test_failure_that_is_over_is_not_shown(memory: Memory, clock: Clock) -> None:
    """Nor a CA's, among the names."""
    data = manager_on(memory, clock, acme_role="data", acme_tos_accepted=False)
    stored = {_A.name: Backoff(1, clock() - 1, "no"), "https://ca.test/directory": Backoff(1, clock() + 60, "down")}
    assert data.backoffs.of_names(stored) == {}
