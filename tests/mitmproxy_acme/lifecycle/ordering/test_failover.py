"""Several CAs: which one is asked for a name, what each failure blocks, and when the preferred one is asked again."""

import re
from typing import Any

import pytest

from acme_storage.memory import Memory
from mitmproxy_acme.admin import gauges
from mitmproxy_acme.admin.inventory import Inventory
from mitmproxy_acme.admin.node_state import NodeStateReader
from mitmproxy_acme.admin.status import describe_status
from mitmproxy_acme.ca.capabilities import Capabilities
from mitmproxy_acme.ca.http.network import BRIEF, PATIENT
from mitmproxy_acme.ca.issuers import issuers_of
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.backoff import Backoff
from mitmproxy_acme.core.errors import (
    BackingOff,
    ChallengeFailed,
    IssuanceError,
    IssuerUnavailable,
    LimitReached,
    NameRefused,
    NotOffered,
    Problem,
    RateLimited,
    SettingsRefused,
    Unfinished,
)
from mitmproxy_acme.core.events import CertificateFailed, CertificateObtained, CheckScheduled, Event
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.rate_limits import LimitKind as Limit
from mitmproxy_acme.core.rate_limits import Limits, parse_setting
from mitmproxy_acme.core.thread_pools import ThreadPools
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.store.keys import name_scope
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.fakes import UNSEALED, Clock, FakeIssuer, make_certificate, manager_on

_A, _B, _C = (Subject((ServerName(f"{letter}.example.test"),)) for letter in "abc")
_FIRST, _SECOND = "https://first.test/dir", "https://second.test/dir"

_DOWN = IssuerUnavailable("first is down")
_OF_THE_CA = [_DOWN, IssuerUnavailable("busy", retry_after=5), SettingsRefused("externalAccountRequired: no")]
_AT_ONE_CA = [
    RateLimited("too many", retry_after=5),
    ChallengeFailed("barred", problem=Problem("caa")),
    NotOffered("no addresses", problem=Problem("unsupportedIdentifier")),
    Unfinished("not in time"),
]
_OF_THE_NAME = [
    ChallengeFailed("no route", problem=Problem("connection")),
    NameRefused("no", problem=Problem("rejectedIdentifier")),
    IssuanceError("KeyError in the addon"),
]


@pytest.fixture
def first(clock: Clock) -> FakeIssuer:
    return FakeIssuer(clock, directory=_FIRST, name="first")


@pytest.fixture
def second(clock: Clock) -> FakeIssuer:
    return FakeIssuer(clock, directory=_SECOND, name="second")


@pytest.fixture
def manager(memory: Memory, clock: Clock, first: FakeIssuer, second: FakeIssuer) -> Manager:
    return manager_on(memory, clock, first, second)


def another(memory: Memory, clock: Clock, *issuers: FakeIssuer, **options: Any) -> Manager:
    """Another node on the same storage, or the same one after a restart."""
    return manager_on(memory, clock, *issuers, **options)


async def test_two_unfinished_orders_in_a_row_are_the_cas(manager: Manager, first: FakeIssuer, clock: Clock) -> None:
    """A certificate issued in between shows that the CA works; a single CA is asked for every name all the same."""
    for subject in (_A, _A):
        first.error = Unfinished("not in time")
        await manager.obtain(subject)
        await manager.delete(subject.id)
        clock.advance(3_600)
    assert manager.store.backoff(_FIRST) is None
    first.error = None
    await manager.obtain(_C)
    first.error = Unfinished("not in time")
    await manager.obtain(_B)
    assert manager.store.backoff(_FIRST) is None
    await manager.obtain(_A)
    assert manager.store.backoff(_FIRST) is not None

    alone = manager_on(Memory(), clock, first)
    for subject in (_A, _B, _C):
        with pytest.raises(Unfinished):
            await alone.obtain(subject)
    assert alone.store.backoff(_FIRST) is None


async def test_first_is_asked_while_it_is_well(manager: Manager, second: FakeIssuer) -> None:
    """The other CAs are not asked."""
    assert (await manager.obtain(_A)).ca == _FIRST
    assert second.orders == []


@pytest.mark.parametrize("error", _OF_THE_CA + _AT_ONE_CA, ids=str)
async def test_fault_of_the_ca_sends_to_the_next(manager: Manager, first: FakeIssuer, error: IssuanceError) -> None:
    """At once; the listeners hear of the certificate, and of no failure."""
    heard = list[Event]()
    manager.events.subscribe(heard.append)
    first.error = error

    assert (await manager.obtain(_A)).ca == _SECOND

    assert [type(event) for event in heard] == [CheckScheduled, CertificateObtained]
    assert [event.ca for event in heard if isinstance(event, CertificateObtained)] == ["second"]


@pytest.mark.parametrize("error", _OF_THE_NAME, ids=str)
async def test_fault_of_the_name_does_not(
    manager: Manager, first: FakeIssuer, second: FakeIssuer, error: IssuanceError
) -> None:
    """The next CA would fail as well: it is not asked, neither now nor during the backoff of the name."""
    first.error = error
    with pytest.raises(type(error)):
        await manager.obtain(_A)
    with pytest.raises(BackingOff):
        await manager.obtain(_A)
    assert (len(first.orders), second.orders) == (1, [])


@pytest.mark.parametrize("error", _OF_THE_CA, ids=str)
async def test_ca_that_failed_is_left_alone_for_every_name(
    manager: Manager, first: FakeIssuer, error: IssuanceError, caplog: pytest.LogCaptureFixture
) -> None:
    """Until its backoff ends the second serves, and the log has one line about it."""
    first.error = error
    for name in (_A, _B):
        assert (await manager.obtain(name)).ca == _SECOND
    assert first.orders == [_A]
    assert len(re.findall(r"trying second, and first again in", caplog.text)) == 1
    assert "no certificate" not in caplog.text
    (said,) = (record.__dict__["acme"] for record in caplog.records)
    assert (said["event"], said["ca"], said["name"], said["reason"]) == ("failed_over", "first", _A.id, str(error))


@pytest.mark.parametrize("error", _AT_ONE_CA, ids=str)
async def test_ca_that_will_not_have_a_name_is_asked_for_others(
    manager: Manager, first: FakeIssuer, error: IssuanceError
) -> None:
    """A rate limit and a CAA record concern one name at one CA."""
    first.error = error
    assert (await manager.obtain(_A)).ca == _SECOND
    first.error = None
    assert (await manager.obtain(_B)).ca == _FIRST
    await manager.delete(_A.id)
    assert (await manager.obtain(_A)).ca == _SECOND


@pytest.mark.parametrize("error", [IssuerUnavailable("busy", retry_after=5_000), RateLimited("", retry_after=5_000)])
async def test_retry_after_holds_to_the_second_on_every_node(
    manager: Manager,
    memory: Memory,
    clock: Clock,
    first: FakeIssuer,
    second: FakeIssuer,
    error: IssuanceError,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Before that, a restart asks the second CA; then the first is asked again, and a recovery is logged."""
    caplog.set_level("INFO")
    first.error = error
    await manager.obtain(_A)
    first.error = None
    clock.advance(4_999)
    restarted = another(memory, clock, first, second)
    await restarted.delete(_A.id)
    assert (await restarted.obtain(_A)).ca == _SECOND
    assert len(first.orders) == 1

    clock.advance(1)

    await restarted.delete(_A.id)
    assert (await restarted.obtain(_A)).ca == _FIRST
    assert ("first issues again" in caplog.text) is isinstance(error, IssuerUnavailable)


async def test_failure_of_the_first_outlives_the_seconds_certificate(
    manager: Manager, clock: Clock, first: FakeIssuer, second: FakeIssuer
) -> None:
    """What the second issues says nothing of the first: its next failure is its second one in a row."""
    first.error = _DOWN
    await manager.obtain(_A)
    clock.advance(61)
    await manager.obtain(_B)
    backoff = manager.store.backoff(_FIRST)
    assert backoff is not None
    assert (backoff.failures, backoff.until) == (2, clock() + 120)


async def test_each_fails(
    manager: Manager, clock: Clock, first: FakeIssuer, second: FakeIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    """The reason of the last CA is published once; no CA is asked until the first backoff ends."""
    heard = list[Event]()
    manager.events.subscribe(heard.append)
    first.error, second.error = IssuerUnavailable("first", retry_after=500), IssuerUnavailable("second")
    with pytest.raises(IssuerUnavailable, match="second"):
        await manager.obtain(_A)
    with pytest.raises(BackingOff, match="retry in 60 s: second") as refused:
        await manager.obtain(_B)

    assert refused.value.until == clock() + 60
    assert manager.backoffs.stopped() == manager.store.backoff(_SECOND)
    assert [event.ca for event in heard if isinstance(event, CertificateFailed)] == ["second"]
    assert caplog.text.count("no certificate: second; next attempt in 60 s (second, ") == 1

    clock.advance(60)
    first.error = second.error = None
    assert (await manager.obtain(_B)).ca == _SECOND
    assert manager.backoffs.stopped() is None


async def test_second_that_finds_the_name_at_fault_ends_it(
    manager: Manager, first: FakeIssuer, second: FakeIssuer
) -> None:
    """The first is down, then the name cannot be validated: the name backs off, at the first CA too."""
    first.error, second.error = _DOWN, ChallengeFailed("no route")
    with pytest.raises(ChallengeFailed):
        await manager.obtain(_A)
    first.error = None
    with pytest.raises(BackingOff, match="no route"):
        await manager.obtain(_A)
    assert len(first.orders) == 1


async def test_fault_of_ours_is_no_cas(
    manager: Manager, first: FakeIssuer, second: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be made at the next one as well."""

    async def fail(*_: object) -> None:
        raise KeyError("internal")

    monkeypatch.setattr(first, "obtain", fail)
    with pytest.raises(IssuanceError, match="KeyError in the addon"):
        await manager.obtain(_A)
    assert second.orders == []


async def test_each_has_its_own_limits(
    memory: Memory, clock: Clock, first: FakeIssuer, second: FakeIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the limit is used up at the first, the second is asked and counts it; then no CA is asked."""
    first.limits = Limits(orders=parse_setting(Limit.ORDERS, "1/2h"))
    second.limits = Limits(orders=parse_setting(Limit.ORDERS, "1/1h"))
    manager = manager_on(memory, clock, first, second)

    assert [(await manager.obtain(name)).ca for name in (_A, _B)] == [_FIRST, _SECOND]

    assert [ca.budgets.remaining()[0].left for ca in manager.cas] == [0, 0]
    assert "b.example.test: not ordered: 1 new orders in 2 h are used up at first; trying second" in caplog.text
    with pytest.raises(LimitReached, match="used up at second"):
        await manager.obtain(Subject((ServerName("c.example.test"),)))
    with pytest.raises(BackingOff) as refused:
        await manager.obtain(Subject((ServerName("c.example.test"),)))
    assert refused.value.until == clock() + 3_600


async def test_ca_that_fails_while_its_turn_is_counted_is_not_asked(
    manager: Manager, first: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another order may find it down at that moment: then it is not asked again."""

    def spend(names: tuple[ServerName, ...], **_: bool) -> None:
        manager.backoffs._known.put(_FIRST, Backoff(1, manager.now() + 60, "down"))

    monkeypatch.setattr(manager.cas[0].budgets, "has_limits", True)
    monkeypatch.setattr(manager.cas[0].budgets, "take_order", spend)
    assert (await manager.obtain(_A)).ca == _SECOND
    assert first.orders == []


async def test_failed_validation_counts_where_it_failed(
    memory: Memory, clock: Clock, first: FakeIssuer, second: FakeIssuer
) -> None:
    """And at no other CA."""
    limit = parse_setting(Limit.FAILED_VALIDATIONS, "5/1h")
    first.limits = second.limits = Limits(failed_validations=limit)
    manager = manager_on(memory, clock, first, second)
    first.error = ChallengeFailed("no route")
    with pytest.raises(ChallengeFailed):
        await manager.obtain(_A)
    assert [[left.left for left in ca.budgets.remaining()] for ca in manager.cas] == [[4], []]


async def test_renewal_goes_back_to_the_first(manager: Manager, first: FakeIssuer, clock: Clock) -> None:
    """The order of preference decides again; only the CA that issued a certificate is told that it is replaced."""
    first.error = _DOWN
    seconds = await manager.obtain(_A)
    assert manager.is_wanted(_A, seconds)
    assert not manager.cas[0].issuer.is_replacement(seconds)
    first.error = None
    clock.advance(61)

    assert (await manager.obtain(_A, replacing=seconds)).ca == _FIRST


async def test_certificate_of_the_second_is_served_until_it_is_due(
    manager: Manager, memory: Memory, clock: Clock, first: FakeIssuer, second: FakeIssuer
) -> None:
    """There is no new order only because another CA would be preferred."""
    first.error = _DOWN
    served = await manager.obtain(_A)
    first.error = None
    clock.advance(3_600)
    found = await another(memory, clock, first, second).certificate_for(_A.id, on_demand=True)
    assert found is not None
    assert found.fingerprint == served.fingerprint
    assert len(first.orders) == 1


async def test_ca_that_issued_is_asked_when_to_renew_and_to_revoke(
    manager: Manager, clock: Clock, first: FakeIssuer, second: FakeIssuer
) -> None:
    """By the directory stored with the certificate; while that CA backs off it is not asked when to renew."""
    renewer, due = manager.make_renewer(), clock() + 30 * 86_400.0
    second.window = (due, due + 1)
    first.error = _DOWN
    certificate = await manager.obtain(_A)

    info = await renewer._windows.find(_A, certificate)
    assert info is not None
    assert (first.asked, second.asked) == (0, 1)
    await manager.revoke(_A.id, "superseded")
    assert (first.revoked, second.revoked) == ([], [(_A.id, "superseded")])

    of_first = make_certificate(_A.names, ca=_FIRST)
    assert await renewer._windows.find(_A, of_first) is None
    assert first.asked == 0


async def test_person_may_try_a_name_again_at_every_ca(manager: Manager, first: FakeIssuer) -> None:
    """A person's "renew" is not blocked by the name's own failures at a CA."""
    first.error = RateLimited("too many", retry_after=3_600)
    await manager.obtain(_A)
    first.error = None
    assert (await manager.renew(_A)).ca == _FIRST


async def test_overview_lists_each(manager: Manager, first: FakeIssuer, second: FakeIssuer) -> None:
    """In order, each with its own state; a name that another CA serves does not fail, one that none serves does."""
    first.error = IssuerUnavailable("away")
    await manager.obtain(_A)
    second.error = RateLimited("too many", retry_after=3_600)
    with pytest.raises(RateLimited):
        await manager.obtain(_B)

    document = describe_status(await NodeStateReader(manager, Inventory(manager)).read())

    assert [(ca["name"], ca["directory"], ca["state"], ca["error"]) for ca in document["cas"]] == [
        ("first", _FIRST, "backing_off", "away"),
        ("second", _SECOND, "ok", None),
    ]
    assert [(failure["host"], failure["reason"]) for failure in document["failing"]] == [(_B.id, "away")]


async def test_other_nodes_failures_at_one_ca(manager: Manager, clock: Clock) -> None:
    """A name that another node finds refused at one CA is no failing one; at both it is, until the first ends."""
    inventory = Inventory(manager)
    manager.store.save_backoff(name_scope(_A.id, _FIRST), Backoff(1, clock() + 60, "at first"))
    await inventory.read_failures()
    assert inventory.failures() == {}
    soonest = Backoff(1, clock() + 30, "at second")
    manager.store.save_backoff(name_scope(_A.id, _SECOND), soonest)
    await inventory.read_failures()
    assert inventory.failures() == {_A.id: soonest}
    assert [inventory.failure_of_ca(ca.directory) for ca in manager.cas] == [None, None]


async def test_name_that_has_a_certificate_again_has_no_failure(
    manager: Manager, clock: Clock, first: FakeIssuer, second: FakeIssuer
) -> None:
    """Not even at one CA, until the storage is read again."""
    inventory = Inventory(manager)
    for directory in (_FIRST, _SECOND):
        manager.store.save_backoff(name_scope(_A.id, directory), Backoff(1, clock() + 60, "theirs"))
    await inventory.read_failures()
    assert set(inventory.failures()) == {_A.id}
    held = make_certificate(_A.names, ca=_SECOND)
    manager.events.publish(CertificateObtained(_A, held, "second", 1.0, renewal=False, node="n"))
    assert inventory.failures() == {}


async def test_gauges_are_of_each(memory: Memory, clock: Clock, first: FakeIssuer, second: FakeIssuer) -> None:
    """Whether it backs off, and what is left of its limits, by the CA's name."""
    first.limits = second.limits = Limits(orders=parse_setting(Limit.ORDERS, "9/1h"))
    manager = manager_on(memory, clock, first, second)
    first.error = _DOWN
    await manager.obtain(_A)
    inventory = Inventory(manager)
    state = await NodeStateReader(manager, inventory).read()
    samples = {
        (sample.name.removeprefix(gauges.PREFIX), sample.labels["ca"]): sample.value
        for family in gauges.families(state)
        for sample in family.samples
        if "ca" in sample.labels
    }
    assert samples == {
        ("ca_backing_off", "first"): 1,
        ("ca_backing_off", "second"): 0,
        ("ca_budget_left", "first"): 8,
        ("ca_budget_left", "second"): 8,
        ("ca_budget_capacity", "first"): 9,
        ("ca_budget_capacity", "second"): 9,
    }


def test_only_who_has_another_behind_it_must_hurry(memory: Memory) -> None:
    """A silent CA leaves time for the next; the last one gets all the time there is, and so does the only one."""
    threads = ThreadPools()
    try:
        for cas, timeouts in (((_FIRST, _SECOND), [BRIEF, PATIENT]), ((_FIRST,), [PATIENT])):
            config = Config.from_options({"acme_ca": cas})
            issuers = issuers_of(config, Store(memory, UNSEALED), threads)
            assert [issuer.account._timeout for issuer in issuers] == timeouts
    finally:
        threads.close()


def test_silent_rehearsal_leaves_time_for_the_order(memory: Memory) -> None:
    """The CA for tests must hurry, though no other is behind the CA whose orders are rehearsed there."""
    threads = ThreadPools()
    try:
        (issuer,) = issuers_of(Config.from_options({"acme_ca": ("letsencrypt",)}), Store(memory, UNSEALED), threads)
        assert issuer.staging is not None
        assert (issuer.account._timeout, issuer.staging.account._timeout) == (PATIENT, BRIEF)
    finally:
        threads.close()


async def test_data_node_tells_what_control_nodes_stored(memory: Memory, clock: Clock) -> None:
    """It need not know which CAs the cluster asks."""
    node = manager_on(memory, clock, acme_role="data", acme_storage="file:/shared")
    inventory, backoff = Inventory(node), Backoff(1, clock() + 60, "too many")
    node.store.save_backoff(name_scope(_A.id, _FIRST), backoff)
    node.store.save_backoff(_FIRST, backoff)
    await inventory.read_failures()
    assert inventory.failures() == {_A.id: backoff}


_ADDRESS = Subject((ServerName("2001:db8::1"),))


async def test_ca_that_has_no_such_certificates_is_not_asked(
    memory: Memory, clock: Clock, first: FakeIssuer, second: FakeIssuer
) -> None:
    """The next is, at no cost to a limit of the first, which goes on for names."""
    first.capabilities, first.limits = Capabilities(ip=False), Limits(orders=parse_setting(Limit.ORDERS, "1/1h"))
    manager = another(memory, clock, first, second, acme_ip_certificates=True)

    assert (await manager.obtain(_ADDRESS)).ca == _SECOND
    assert first.orders == []
    assert (await manager.obtain(_A)).ca == _FIRST


async def test_address_that_no_ca_has(memory: Memory, clock: Clock, first: FakeIssuer, second: FakeIssuer) -> None:
    """It fails once and is then left alone, and a start with other options asks at once."""
    first.capabilities = second.capabilities = Capabilities(ip=False)
    manager = another(memory, clock, first, second, acme_ip_certificates=True)
    heard = list[Event]()
    manager.events.subscribe(heard.append)

    with pytest.raises(NotOffered, match="second issues no certificates for addresses, and 2001:db8::1 is one"):
        await manager.obtain(_ADDRESS)
    with pytest.raises(BackingOff, match="no certificates for addresses"):
        await manager.obtain(_ADDRESS)
    assert [type(event) for event in heard] == [CertificateFailed]

    second.capabilities = Capabilities()
    restarted = another(memory, clock, first, second, acme_ip_certificates=True)
    assert (await restarted.obtain(_ADDRESS)).ca == _SECOND
