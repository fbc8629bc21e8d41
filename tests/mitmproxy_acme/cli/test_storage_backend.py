"""The storage backend: what a manager's certificates and errors become."""

import pytest
from cryptography.fernet import Fernet

from acme_storage.memory import Memory
from mitmproxy_acme.admin.certificate_rows import State
from mitmproxy_acme.admin.certificate_service import Outcome
from mitmproxy_acme.cli.storage_backend import StorageBackend
from mitmproxy_acme.core.errors import (
    ChallengeFailed,
    IssuanceError,
    IssuerUnavailable,
    NameRefused,
    NotFound,
    RateLimited,
    SettingsRefused,
)
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.lifecycle.manager import Manager
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import Clock, FakeIssuer, make_certificate

A, B = ServerName("a.example.test"), ServerName("b.example.test")
ELSEWHERE = "https://elsewhere.test/dir"


@pytest.fixture
def manager(make_manager: MakeManager) -> Manager:
    return make_manager(acme_certificates=("m.example.test,www.m.example.test",))


@pytest.fixture
def local(manager: Manager) -> StorageBackend:
    return StorageBackend(manager, [])


async def test_issued_once(local: StorageBackend, issuer: FakeIssuer) -> None:
    """The second time it is stored already; any name of a managed certificate means the whole certificate."""
    results = [await local.issue(ServerName(name)) for name in (A, A, "www.m.example.test")]
    assert [result.outcome for result in results] == [Outcome.OBTAINED, Outcome.STORED, Outcome.OBTAINED]
    assert [result.host for result in results] == [A, A, "m.example.test"]
    document = results[2].document
    assert document is not None
    assert (document["names"], document["managed"]) == (["m.example.test", "www.m.example.test"], True)
    assert len(issuer.orders) == 2


async def test_name_that_no_option_allows(local: StorageBackend, memory: Memory, issuer: FakeIssuer) -> None:
    """It fails with the sentence, and nothing is ordered."""
    results = [await local.issue(ServerName("x.test"))]
    assert (await local.renew(ServerName("x.test"))).reason == "no certificate is stored for x.test"
    memory.put("certificates/x.test", make_certificate(["x.test"]).to_record())
    for result in [*results, await local.renew(ServerName("x.test"))]:
        assert (result.outcome, result.retry_at, result.stop) == (Outcome.FAILED, None, "")
        assert result.reason == "host x.test is not included in acme_domains or acme_certificates"
    assert issuer.orders == []


async def test_renewal_of_what_was_never_had(local: StorageBackend, issuer: FakeIssuer) -> None:
    """A slip orders nothing, as by the admin API."""
    result = await local.renew(A)
    assert (result.outcome, result.reason) == (Outcome.FAILED, f"no certificate is stored for {A}")
    assert issuer.orders == []
    await local.issue(A)
    assert (await local.renew(A)).outcome is Outcome.RENEWED


@pytest.mark.parametrize(
    ("error", "limited", "unvalidated", "stops"),
    [
        (ChallengeFailed("the CA could not validate it"), False, True, False),
        (NameRefused("the CA will not"), False, False, False),
        (RateLimited("too many"), True, False, False),
        (IssuerUnavailable("the CA is down"), False, False, True),
        (SettingsRefused("no such account"), False, False, True),
    ],
)
async def test_failures(
    local: StorageBackend, issuer: FakeIssuer, error: IssuanceError, limited: bool, unvalidated: bool, stops: bool
) -> None:
    """The class tells whether others would fare better, and the backoff when to try again."""
    issuer.error = error
    result = await local.issue(A)
    assert (result.outcome, result.reason) == (Outcome.FAILED, str(error))
    assert (result.limited, result.unvalidated) == (limited, unvalidated)
    assert result.retry_at == "2027-01-15T08:01:00Z"
    assert result.stop == (str(error) if stops else "")
    again = await local.issue(A)
    assert (again.reason, again.retry_at) == (str(error), "2027-01-15T08:01:00Z")  # the first backoff, not the second
    assert len(issuer.orders) == 2


async def test_certificate_of_another_ca_is_no_success(local: StorageBackend, issuer: FakeIssuer) -> None:
    """The other CA's certificate is still served, but the result is a failure."""
    directory, issuer.directory = issuer.directory, ELSEWHERE
    await local.issue(A)
    issuer.directory, issuer.error = directory, ChallengeFailed("no route")
    result = await local.issue(A)
    assert (result.outcome, "no route" in result.reason) == (Outcome.FAILED, True)


async def test_data_node_without_a_control_node(make_manager: MakeManager) -> None:
    """No node orders, for any name."""
    local = StorageBackend(make_manager(acme_role="data"), [])
    result = await local.issue(A)
    assert (result.outcome, result.stop) == (Outcome.FAILED, f"{A}: no control node is up to order it")
    assert (await local.renew(A)).stop == "this is a data node, which never talks to a CA; ask a control node"


async def test_certificate_that_no_key_decrypts(
    local: StorageBackend, make_manager: MakeManager, issuer: FakeIssuer
) -> None:
    """A person reads which option to change; nothing is ordered, and the other names are tried."""
    await StorageBackend(make_manager(acme_storage_key=Fernet.generate_key().decode()), []).issue(A)
    results = [await local.issue(A), await local.renew(A)]
    assert [(result.outcome, result.stop, result.retry_at) for result in results] == [(Outcome.FAILED, "", None)] * 2
    assert all("acme_storage_key is not set" in result.reason for result in results)
    assert len(issuer.orders) == 1


async def test_listed_by_state_and_text(local: StorageBackend, clock: Clock, issuer: FakeIssuer) -> None:
    """In order, all pages of them, and each with why it is not renewed."""
    issuer.lifetime = 30 * DAY
    await local.issue(B)
    clock.advance(25 * DAY)
    await local.issue(A)
    assert [document["host"] async for document in local.select()] == [A, B]
    assert [document["host"] async for document in local.select(search="b.ex")] == [B]
    issuer.error = ChallengeFailed("no route")
    await local.renew(B)
    expiring = [document async for document in local.select(states=[State.EXPIRING])]
    assert [(document["host"], document["last_failure"]["reason"]) for document in expiring] == [(B, "no route")]


async def test_not_found_says_why(local: StorageBackend, issuer: FakeIssuer) -> None:
    """A name that failed has a reason, another has none."""
    issuer.error = ChallengeFailed("no route")
    await local.issue(A)
    with pytest.raises(NotFound, match="no route; next attempt at 2027"):
        await local.get(A)
    with pytest.raises(NotFound, match=rf"no certificate is stored for {B}$"):
        await local.get(B)


async def test_revoked_by_any_of_its_names(local: StorageBackend, memory: Memory, issuer: FakeIssuer) -> None:
    """It is gone then."""
    await local.issue(ServerName("m.example.test"))
    await local.revoke(ServerName("www.m.example.test"), "superseded")
    assert issuer.revoked == [("m.example.test", "superseded")]
    assert memory.keys("certificates/") == []


def test_way_tells_of_proxies(manager: Manager) -> None:
    """Without a proxy nothing answers the CA's challenges."""
    assert "(no proxy uses it now)" in StorageBackend(manager, []).description
    assert "(1 proxy uses it)" in StorageBackend(manager, [manager.node]).description
    assert "(2 proxies use it)" in StorageBackend(manager, [manager.node] * 2).description


async def test_second_kind_of_key_is_a_certificate_of_its_own(make_manager: MakeManager, issuer: FakeIssuer) -> None:
    """NAME means the preferred kind's, NAME+rsa the other; what failed concerns the name, and both."""
    local = StorageBackend(make_manager(acme_key_type=("ecdsa-p256", "rsa-2048")), [])
    first, second = ServerName("a.example.test"), ServerName("a.example.test+rsa")
    assert [(await local.issue(id)).host for id in (first, second)] == [first, second]
    assert [(await local.get(id))["key_type"] for id in (first, second)] == ["ecdsa-p256", "rsa-2048"]
    assert (await local.renew(second)).outcome is Outcome.RENEWED
    issuer.error = ChallengeFailed("no server answers")
    failed = await local.renew(second)
    assert (failed.outcome, failed.unvalidated) == (Outcome.FAILED, True)
    assert {(await local.get(id))["last_failure"]["reason"] for id in (first, second)} == {"no server answers"}
    issuer.error = None
    await local.revoke(second, "superseded")
    assert [document["host"] async for document in local.select()] == [first]


async def test_certificate_of_the_wrong_kind_is_no_success(make_manager: MakeManager, issuer: FakeIssuer) -> None:
    """The old certificate is still served, but the result is a failure."""
    await StorageBackend(make_manager(acme_key_type=("rsa-2048",)), []).issue(A)
    issuer.error = ChallengeFailed("no route")
    result = await StorageBackend(make_manager(acme_key_type=("ecdsa-p256", "rsa-2048")), []).issue(A)
    assert (result.outcome, "no route" in result.reason) == (Outcome.FAILED, True)
