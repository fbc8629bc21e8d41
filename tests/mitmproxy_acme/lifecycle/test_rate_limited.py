"""What the manager does when a limit of the CA is used up."""

import asyncio

import pytest

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.core.errors import BackingOff, ChallengeFailed, IssuerUnavailable, LimitReached, Problem
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.rate_limits import LimitKind as Limit
from mitmproxy_acme.core.rate_limits import Limits, parse_setting
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.lifecycle.ordering.exhausted_limits import ExhaustedLimits
from mitmproxy_acme.store.rate_limiter import LimitExceeded, RateLimiter
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import Clock, Counting, FakeIssuer, make_certificate


def name(number: int) -> ServerName:
    return ServerName(f"n{number}.example.test")


async def ordered(manager: Manager, number: int) -> None:
    assert await manager.certificate_for(name(number), on_demand=True) is not None


@pytest.fixture
def limited(issuer: FakeIssuer) -> FakeIssuer:
    """A CA that gives an account two orders in an hour."""
    issuer.limits = Limits(orders=parse_setting(Limit.ORDERS, "2/1h"))
    return issuer


async def test_order_beyond_the_limit_is_not_placed(
    make_manager: MakeManager, limited: FakeIssuer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The third order is refused with a time, logged once, and succeeds at that time."""
    manager = make_manager()
    await ordered(manager, 1)
    await ordered(manager, 2)
    with pytest.raises(LimitReached, match="2 new orders in 60 min are used up at fake-ca") as refused:
        await ordered(manager, 3)
    for _ in range(3):
        clock.advance(11)  # beyond the memory of refusals
        with pytest.raises(BackingOff, match="2 new orders in 60 min are used up at fake-ca"):
            await ordered(manager, 3)
    assert len(limited.orders) == 2
    assert caplog.text.count("not ordered: 2 new orders in 60 min are used up") == 1

    clock.time = refused.value.until + 0.01

    await ordered(manager, 3)


async def test_nodes_share_what_is_left(make_manager: MakeManager, limited: FakeIssuer) -> None:
    """Another node of the cluster has no orders of its own."""
    await ordered(make_manager(), 1)
    await ordered(make_manager(), 2)
    with pytest.raises(LimitReached):
        await ordered(make_manager(), 3)


async def test_renewal_that_the_ca_exempts_is_not_counted(
    make_manager: MakeManager, limited: FakeIssuer, memory: Memory, clock: Clock
) -> None:
    """It tells the CA which certificate it replaces, so it is ordered beyond the limit, and does not count."""
    manager = make_manager()
    await ordered(manager, 1)
    await ordered(manager, 2)
    for _ in range(3):
        assert await manager.renew(Subject((name(1),)))
    assert len(limited.orders) == 5
    assert [left.left for left in manager.cas[0].budgets.remaining()] == [0]


async def test_renewal_that_the_ca_exempts_goes_not_beyond_the_failed_validations(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock
) -> None:
    """Even if its certificate ends soon: the CA takes the order, and would block the name for its failures."""
    issuer.limits = Limits(failed_validations=parse_setting(Limit.FAILED_VALIDATIONS, "2/1h"))
    issuer.lifetime = 3_600
    manager = make_manager()
    await ordered(manager, 1)
    clock.advance(1_800)
    held = manager.store.slot(name(1)).certificate
    issuer.error = ChallengeFailed("no such host", problem=Problem("dns", identifiers=(name(1),)))
    for _ in range(2):
        with pytest.raises(ChallengeFailed):
            await manager.obtain(Subject((name(1),)), held)
        clock.advance(500)

    with pytest.raises(LimitReached, match="2 failed validations of"):
        await manager.obtain(Subject((name(1),)), held)
    assert len(issuer.orders) == 3


async def test_certificate_of_another_ca_is_replaced_by_an_order_that_counts(
    make_manager: MakeManager, limited: FakeIssuer, memory: Memory
) -> None:
    """The CA of the options does not know what is replaced."""
    manager = make_manager()
    other = make_certificate([name(1)], ca="https://other.test/dir")
    manager.store.replace(manager.store.slot(name(1)), other)
    await ordered(manager, 1)
    assert [left.left for left in manager.cas[0].budgets.remaining()] == [1]


async def test_failed_validation_counts_for_the_name_that_failed(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock
) -> None:
    """A name that cannot be validated is not ordered beyond the limit, with no other names either."""
    issuer.limits = Limits(failed_validations=parse_setting(Limit.FAILED_VALIDATIONS, "1/1h"))
    problem = Problem("dns", identifiers=("bad.example.test",))
    issuer.error = ChallengeFailed("no such host", problem=problem)
    manager = make_manager(acme_certificates=["good.example.test,bad.example.test"])
    with pytest.raises(ChallengeFailed):
        await manager.ensure(manager.config.managed[0])

    issuer.error = None
    clock.advance(70)  # beyond the backoff of the certificate as a whole

    with pytest.raises(LimitReached, match=r"1 failed validations of bad\.example\.test"):
        await make_manager().certificate_for(ServerName("bad.example.test"), on_demand=True)
    assert await make_manager().certificate_for(ServerName("good.example.test"), on_demand=True)


async def test_ca_that_is_found_down_meanwhile_is_not_asked(make_manager: MakeManager, issuer: FakeIssuer) -> None:
    """Of many orders that wait for the limits in storage the first finds the CA down; the others do not ask it."""
    issuer.error = IssuerUnavailable("no connection")
    manager = make_manager()
    asked = [manager.certificate_for(name(number), on_demand=True) for number in range(20)]

    failures = await asyncio.gather(*asked, return_exceptions=True)

    assert {type(failure) for failure in failures} == {IssuerUnavailable, BackingOff}
    assert len(issuer.orders) == 1


class TestReserve:
    """Visitors can invent names: a fifth of the limits that all names share is kept from them."""

    @pytest.fixture
    def limited(self, issuer: FakeIssuer) -> FakeIssuer:
        issuer.limits = Limits(orders=parse_setting(Limit.ORDERS, "10/10h"))
        return issuer

    async def flooded(self, manager: Manager, names: int = 60, first: int = 1_000) -> list[BaseException]:
        """Let visitors ask for invented names; return how they were refused."""
        asked = [manager.certificate_for(name(first + number), on_demand=True) for number in range(names)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return [answer for answer in answers if isinstance(answer, BaseException)]

    async def test_operator_has_orders_when_visitors_have_used_up_theirs(
        self, make_manager: MakeManager, limited: FakeIssuer, clock: Clock
    ) -> None:
        """A managed name, a renewal and a person's name are ordered after any number of invented names."""
        limited.is_replacement = lambda replacing: False  # type: ignore[method-assign]  # or it is not counted
        manager = make_manager(acme_certificates=("managed.test",))
        refused = await self.flooded(manager)
        assert len(limited.orders) == 8
        assert {type(refusal) for refusal in refused} == {LimitReached}
        assert "8 of 10 new orders in 10 h (the rest is for managed certificates, renewals and" in str(refused[0])

        assert await manager.ensure(manager.config.managed[0])
        assert await manager.renew(limited.orders[0])

        clock.advance(3_601)  # one comes back: not for visitors, as long as the reserve is not full
        assert len(await self.flooded(manager, first=2_000)) == 60
        assert await manager.issue(Subject((name(1),)))
        with pytest.raises(LimitReached, match="10 new orders in 10 h are used up"):
            await manager.issue(Subject((name(2),)))

    async def test_stored_name_is_the_operators_own(
        self, make_manager: MakeManager, limited: FakeIssuer, clock: Clock, memory: Memory
    ) -> None:
        """A visitor of a certificate that has expired renews it, out of the reserve."""
        expired = make_certificate([name(1)], now=clock() - 100, lifetime=50)
        manager = make_manager()
        assert manager.store.replace(manager.store.slot(name(1)), expired)
        await self.flooded(manager)
        await ordered(manager, 1)
        assert len(limited.orders) == 9

    async def test_certificates_of_a_domain_are_left_for_the_operator(
        self, make_manager: MakeManager, issuer: FakeIssuer
    ) -> None:
        """All invented names below one domain share its limit."""
        issuer.limits = Limits(certificates_per_domain=parse_setting(Limit.CERTIFICATES_PER_DOMAIN, "10/10h"))
        manager = make_manager(acme_certificates=("www.example.test",))
        for number in range(9):
            await self.flooded(manager, 1) if number > 7 else await ordered(manager, number)
        assert len(issuer.orders) == 8
        assert await manager.ensure(manager.config.managed[0])

    async def test_limit_that_is_used_up_is_met_before_storage_and_logged_once(
        self, make_manager: MakeManager, limited: FakeIssuer, memory: Memory, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Each further name costs one lookup in storage: no lease, no limits in storage, no log line."""
        manager = make_manager()
        await self.flooded(manager)
        storage = Counting(memory)
        manager.store.storage = storage

        asked = [manager.certificate_for(name(5_000 + number), on_demand=True) for number in range(50)]
        answers = await asyncio.gather(*asked, return_exceptions=True)

        assert {type(answer) for answer in answers} == {LimitReached}
        assert storage.calls == {"get": 50}
        assert caplog.text.count("not ordered: ") == 1
        assert memory.keys("backoffs/") == []

    def test_edge_of_a_wrong_clock_ends(self, clock: Clock) -> None:
        """What was remembered before the clock was set back blocks nothing."""
        edges, subject = ExhaustedLimits(clock), Subject((name(1),))
        limit = parse_setting(Limit.ORDERS, "10/10h")
        assert limit is not None
        assert edges.remember("https://ca.test/dir", LimitExceeded(Limit.ORDERS, "", limit, clock() + 3_600))
        assert edges.find("https://ca.test/dir", subject) is not None
        assert edges.find("https://other.test/dir", subject) is None
        clock.advance(-365 * 86_400)
        assert edges.find("https://ca.test/dir", subject) is None


async def test_certificate_has_not_failed_for_a_limit_that_cannot_be_counted(
    make_manager: MakeManager, limited: FakeIssuer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is issued and stored: it is served, and the CA counts too."""

    def down(limiter: RateLimiter, names: object) -> None:
        raise StorageUnavailable("down")

    monkeypatch.setattr(RateLimiter, "count_certificate", down)
    await ordered(make_manager(), 1)
    assert "a limit of fake-ca is not counted: down" in caplog.text


async def test_certificate_of_an_exempt_renewal_takes_nothing_off_a_domain(
    make_manager: MakeManager, issuer: FakeIssuer
) -> None:
    """Neither from the certificates of its domain, nor from those of exactly its names."""
    issuer.limits = Limits(
        certificates_per_domain=parse_setting(Limit.CERTIFICATES_PER_DOMAIN, "5/1h"),
        duplicates=parse_setting(Limit.DUPLICATES, "5/1h"),
    )
    manager = make_manager()
    await ordered(manager, 1)
    assert [left.left for left in manager.cas[0].budgets.remaining()] == [4, 4]
    for _ in range(3):
        assert await manager.renew(Subject((name(1),)))
    assert [left.left for left in manager.cas[0].budgets.remaining()] == [4, 4]
