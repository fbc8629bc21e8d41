"""When a name is ordered at the staging directory first, and what that means for the CA itself."""

import asyncio
import logging
from typing import Any

import pytest

from acme_storage import StorageUnavailable
from acme_storage.memory import Memory
from mitmproxy_acme.ca.issuers import issuers_of
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.errors import (
    AccountUnknown,
    AcmeError,
    ChallengeFailed,
    DecryptionFailed,
    IssuanceError,
    IssuerUnavailable,
    NameRefused,
    Problem,
    RateLimited,
    SettingsRefused,
)
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.rate_limits import Limit, Limits
from mitmproxy_acme.core.thread_pools import ThreadPools
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.store.store import Store
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import UNSEALED, Clock, FakeIssuer, manager_on

A, B = Subject((ServerName("a.example.test"),)), Subject((ServerName("b.example.test"),))
NO_ROUTE = ChallengeFailed("no route", problem=Problem("connection"))


@pytest.fixture
def staging(clock: Clock) -> FakeIssuer:
    return FakeIssuer(clock, directory="https://staging.test/dir", name="stage")


@pytest.fixture
def issuer(clock: Clock, staging: FakeIssuer) -> FakeIssuer:
    return FakeIssuer(clock, staging=staging)


async def fail(manager: Manager, issuer: FakeIssuer, error: IssuanceError = NO_ROUTE) -> None:
    """Let the CA itself fail once for the name; then it works again."""
    issuer.error = error
    with pytest.raises(type(error)):
        await manager.obtain(A)
    issuer.error = None


async def test_only_what_has_failed_is_rehearsed(
    make_manager: MakeManager, issuer: FakeIssuer, staging: FakeIssuer, clock: Clock
) -> None:
    """The first order of a name goes to the CA; after a failure staging comes first, and after a success no more."""
    manager = make_manager()
    await fail(manager, issuer)
    assert (len(issuer.orders), len(staging.orders)) == (1, 0)
    clock.advance(61)

    certificate = await manager.obtain(A)
    await manager.obtain(B)
    await manager.renew(A)

    assert certificate.ca == issuer.directory
    assert staging.orders == [A]
    assert issuer.orders == [A, A, B, A]


async def test_failed_rehearsal_is_a_failure_that_the_ca_never_sees(
    make_manager: MakeManager, issuer: FakeIssuer, staging: FakeIssuer, clock: Clock, memory: Memory
) -> None:
    """The backoff grows as it would have, the message tells where it was tried, and no limit of the CA is spent."""
    issuer.limits = Limits(orders=Limit(10, 3_600.0), failed_validations=Limit(2, 3_600.0))
    manager = make_manager()
    await fail(manager, issuer)
    staging.error = NO_ROUTE
    spent = {key: memory.get(key) for key in memory.keys("budgets/")}

    for wait in (61, 661, 6_661):
        clock.advance(wait)
        with pytest.raises(ChallengeFailed, match=r"no route \(rehearsed at stage\)"):
            await manager.obtain(A)

    assert (len(issuer.orders), len(staging.orders)) == (1, 3)
    assert len(spent) == 2
    assert all(spent.get(key) == memory.get(key) for key in memory.keys("budgets/"))
    backoff = Store(memory, UNSEALED).backoff(A.id)
    assert backoff is not None
    assert (backoff.failures, backoff.until - clock()) == (4, 86_400.0)


@pytest.mark.parametrize(
    "error",
    [
        IssuerUnavailable("away"),
        SettingsRefused("no account here"),
        AccountUnknown("who?"),
        RateLimited("too many", retry_after=5),
        IssuanceError("not in time"),
        DecryptionFailed("no key decrypts the account"),
        ChallengeFailed("barred", problem=Problem("caa")),
        NameRefused("no such contact", problem=Problem("malformed")),
    ],
)
async def test_staging_that_cannot_tell_is_left_out(
    make_manager: MakeManager,
    issuer: FakeIssuer,
    staging: FakeIssuer,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    error: AcmeError,
) -> None:
    """The CA itself is asked all the same."""
    caplog.set_level(logging.INFO)
    manager = make_manager()
    await fail(manager, issuer)
    staging.error = error
    clock.advance(61)

    assert (await manager.obtain(A)).ca == issuer.directory

    assert f"a.example.test: not rehearsed at stage: {error}" in caplog.text
    assert staging.orders == [A]


@pytest.mark.parametrize("kind", [KeyError, RuntimeError])
async def test_fault_of_ours_in_a_rehearsal_is_logged_and_left_out(
    make_manager: MakeManager,
    issuer: FakeIssuer,
    staging: FakeIssuer,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[Exception],
) -> None:
    """An unexpected error does not keep a name from the CA itself either."""
    manager = make_manager()
    await fail(manager, issuer)
    clock.advance(61)

    async def stumble(subject: Subject) -> None:
        raise kind("something internal")

    monkeypatch.setattr(staging, "rehearse", stumble)
    assert (await manager.obtain(A)).ca == issuer.directory
    assert "the rehearsal failed by a fault of this addon" in caplog.text


@pytest.mark.parametrize("error", [IssuerUnavailable("away"), RateLimited("too many", retry_after=5)])
async def test_fault_of_the_ca_calls_for_no_rehearsal(
    make_manager: MakeManager, issuer: FakeIssuer, staging: FakeIssuer, clock: Clock, error: IssuanceError
) -> None:
    """The name itself has not failed."""
    manager = make_manager()
    await fail(manager, issuer, error)
    clock.advance(3_600)
    await manager.obtain(A)
    assert staging.orders == []


async def test_person_who_tries_again_rehearses_too(
    make_manager: MakeManager, issuer: FakeIssuer, staging: FakeIssuer
) -> None:
    """At once, as a person says so; how often that fails is no matter to the CA. So it is at another node."""
    first, second = make_manager(), make_manager()
    await fail(first, issuer)
    staging.error = NO_ROUTE
    for manager in (second, first, second):
        await manager.backoffs.reset(A)
        with pytest.raises(ChallengeFailed, match="rehearsed at stage"):
            await manager.ensure(A)
    assert (len(issuer.orders), len(staging.orders)) == (1, 3)

    staging.error = None
    await first.backoffs.reset(A)
    await first.ensure(A)
    await first.renew(A)
    assert (len(issuer.orders), len(staging.orders)) == (3, 4)


async def test_ca_that_is_down_is_not_rehearsed_for(
    memory: Memory, clock: Clock, issuer: FakeIssuer, staging: FakeIssuer
) -> None:
    """The next CA is asked, which has no such directory."""
    second = FakeIssuer(clock, directory="https://second.test/dir", name="second")
    manager = manager_on(memory, clock, issuer, second)
    await fail(manager, issuer)
    clock.advance(61)

    async def be_down(subject: Subject) -> None:
        raise IssuerUnavailable("away")

    issuer.ready = be_down  # type: ignore[method-assign]  # this fake fails later otherwise
    assert (await manager.obtain(A)).ca == second.directory
    assert staging.orders == []


def _stagings(*entries: str, **options: Any) -> list[str | None]:
    values = {"acme_ca": entries, "acme_domains": ("a.test",), "acme_tos_accepted": True}
    config = Config.from_options(values | options)
    issuers = issuers_of(config, Store(Memory(), UNSEALED), ThreadPools())
    return [issuer.staging.directory if issuer.staging else None for issuer in issuers]


def test_lets_encrypts_staging_is_known() -> None:
    """By its alias as by its URL; no other's is, and any can be given, or switched off."""
    known = "https://acme-staging-v02.api.letsencrypt.org/directory"
    assert _stagings("letsencrypt") == [known]
    assert _stagings("https://acme-v02.api.letsencrypt.org/directory") == [known]
    assert _stagings("letsencrypt;staging=off", "https://ca.test/dir") == [None, None]
    assert _stagings("letsencrypt-staging") == [None]
    assert _stagings("https://ca.test/dir;staging=https://ca.test/stage") == ["https://ca.test/stage"]


@pytest.mark.parametrize("challenge", ["dns-account-01", "dns-persist-01"])
def test_proof_for_one_account_cannot_be_rehearsed(challenge: str) -> None:
    """Another account, as staging has it, would need another record in DNS."""
    assert _stagings("letsencrypt", acme_challenges=("http-01", challenge)) == [None]


async def test_staging_that_hangs_keeps_nobody_waiting(
    make_manager: MakeManager,
    issuer: FakeIssuer,
    staging: FakeIssuer,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The CA itself is asked after some seconds."""
    manager = make_manager()
    await fail(manager, issuer)
    clock.advance(61)

    async def hang(subject: Subject) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(staging, "rehearse", hang)
    monkeypatch.setattr("mitmproxy_acme.lifecycle.ordering.staging._PATIENCE", 0.01)
    caplog.set_level(logging.INFO)
    async with asyncio.timeout(20):
        assert (await manager.obtain(A)).ca == issuer.directory
    assert "not rehearsed at stage: it takes too long" in caplog.text


async def test_wait_that_staging_asks_for_is_kept(
    make_manager: MakeManager, issuer: FakeIssuer, staging: FakeIssuer, clock: Clock
) -> None:
    """The Retry-After of a failed rehearsal is followed as the CA's own."""
    manager = make_manager()
    await fail(manager, issuer)
    clock.advance(61)
    staging.error = ChallengeFailed("no route", problem=Problem("connection"), retry_after=7_200.0)
    with pytest.raises(ChallengeFailed):
        await manager.obtain(A)
    backoff = manager.backoffs.active_backoff(A)
    assert backoff is not None
    assert backoff.until == clock() + 7_200


async def test_storage_that_fails_during_a_rehearsal_is_no_reason_to_ask_the_ca(
    make_manager: MakeManager, issuer: FakeIssuer, staging: FakeIssuer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is ordered while storage is down."""
    manager = make_manager()
    await fail(manager, issuer)
    clock.advance(61)

    async def down(subject: Subject) -> None:
        raise StorageUnavailable("down")

    monkeypatch.setattr(staging, "rehearse", down)
    with pytest.raises(StorageUnavailable):
        await manager.obtain(A)
    assert len(issuer.orders) == 1


async def test_problem_of_a_rehearsal_is_told_as_the_cas(
    make_manager: MakeManager, issuer: FakeIssuer, staging: FakeIssuer, clock: Clock
) -> None:
    """Its kind, which clients of the admin API read, and where it was found."""
    manager = make_manager()
    await fail(manager, issuer)
    staging.error = ChallengeFailed("no such host", problem=Problem("dns"))
    clock.advance(61)
    with pytest.raises(ChallengeFailed, match=r"no such host \(rehearsed at stage\)") as caught:
        await manager.obtain(A)
    assert caught.value.problem == Problem("dns")
