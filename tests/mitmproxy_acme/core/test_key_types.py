"""Two kinds of keys: which certificate is whose, and when the second one is ordered."""

import asyncio
from typing import Any

import pytest

from acme_storage.memory import Memory
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.errors import BackingOff, ChallengeFailed, ConfigError, IssuerUnavailable, NameNotAllowed
from mitmproxy_acme.core.names import ServerName, Subject, name_of, parse_certificate_name, parse_id
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.lifecycle.ordering.ask import AskClient
from mitmproxy_acme.store.keys import CERTIFICATES_PREFIX
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import RSA_KEY, Clock, FakeIssuer, make_certificate
from tests.mitmproxy_acme.lifecycle.renewal.test_renewer import round_of

NAME = ServerName("a.example.test")
OTHER = ServerName("a.example.test+rsa")
BOTH = ("ecdsa-p256", "rsa-2048")


@pytest.fixture
def manager(make_manager: MakeManager) -> Manager:
    return make_manager(acme_key_type=BOTH)


def subject_of(id: str, *, key_types: tuple[str, ...] = BOTH, **options: Any) -> Subject | None:
    given = {"acme_domains": ("**.example.test",), "acme_tos_accepted": True, "acme_key_type": key_types}
    return Config.from_options(given | options).subject(ServerName(id))


async def have(manager: Manager, id: ServerName) -> Certificate:
    certificate = await manager.certificate_for(id, on_demand=True)
    assert certificate is not None
    return certificate


def stored(memory: Memory) -> list[str]:
    return [key.removeprefix(CERTIFICATES_PREFIX) for key in memory.keys(CERTIFICATES_PREFIX)]


@pytest.mark.parametrize(
    ("id", "name"),
    [("A.test+RSA", "a.test+rsa"), ("*.a.test+ecdsa", "*.a.test+ecdsa"), (" a.test ", "a.test"), ("a.test+", None)]
    + [(wrong, None) for wrong in ("a.test+dsa", "+rsa", "a.test+rsa+rsa", "a+rsa.test", "a.test +rsa x")],
)
def test_id_is_a_name_and_maybe_a_kind(id: str, name: str | None) -> None:
    """The id of a certificate is normalised, or refused with a sentence."""
    assert parse_certificate_name(id) == name
    assert name is None or name_of(ServerName(name)) == name.partition("+")[0]


def test_wrong_kind_is_explained() -> None:
    """The sentence says what would be right."""
    with pytest.raises(
        ConfigError, match=r"NAME: 'a\.test\+dsa' has no known kind of key behind the \+; write NAME, NAME\+rsa or"
    ):
        parse_id("a.test+dsa", "NAME")


def test_first_kind_keeps_the_plain_name() -> None:
    """Stores of one kind go on; the other kind is marked, and a kind that is not served is nothing."""
    assert subject_of(NAME) == Subject((NAME,), key_type="ecdsa-p256")
    assert subject_of(OTHER) == Subject((NAME,), key_type="rsa-2048", mark="+rsa")
    assert subject_of(f"{NAME}+ecdsa", key_types=("rsa-4096", "ecdsa-p384")) == Subject(
        (NAME,), key_type="ecdsa-p384", mark="+ecdsa"
    )
    assert subject_of(OTHER, key_types=("ecdsa-p256",)) is None
    assert [subject_of(f"{NAME}{mark}") for mark in ("+ecdsa", "+", "+dsa")] == [None, None, None]
    assert subject_of("a.elsewhere.test+rsa") is None


def test_managed_certificates_are_of_both_kinds() -> None:
    """Each entry has two certificates, found by any of its names with the mark of the kind."""
    managed: dict[str, Any] = {"acme_certificates": ("m.test,n.test", "*.w.test"), "acme_challenges": ("dns-01",)}
    config = Config.from_options({"acme_tos_accepted": True, "acme_key_type": BOTH} | managed)
    assert [subject.id for subject in config.managed] == ["m.test", "*.w.test", "m.test+rsa", "*.w.test+rsa"]
    assert [subject.key_type for subject in config.managed] == ["ecdsa-p256"] * 2 + ["rsa-2048"] * 2
    for id, found in [("n.test+rsa", "m.test+rsa"), ("x.w.test+rsa", "*.w.test+rsa"), ("x.w.test", "*.w.test")]:
        assert config.id_of(ServerName(id)) == found
    assert config.is_managed(ServerName("n.test+rsa"))
    assert not config.is_managed(ServerName("n.test+ecdsa"))


async def test_each_kind_is_ordered_when_it_is_asked_for(
    manager: Manager, make_manager: MakeManager, issuer: FakeIssuer, memory: Memory
) -> None:
    """They are stored side by side, and the next start finds both."""
    first = await have(manager, NAME)
    assert len(issuer.orders) == 1
    second = await have(manager, OTHER)
    assert (first.key_type, second.key_type) == BOTH
    assert (first.id, second.id) == (NAME, OTHER)
    assert stored(memory) == [NAME, OTHER]
    again = make_manager(acme_key_type=BOTH)
    assert (await have(again, NAME)).fingerprint == first.fingerprint
    assert (await have(again, OTHER)).fingerprint == second.fingerprint
    assert len(issuer.orders) == 2


async def test_name_that_failed_is_left_alone_for_both_kinds(manager: Manager, issuer: FakeIssuer) -> None:
    """A name that cannot be validated for one key cannot be for another, so the CA is asked once."""
    issuer.error = ChallengeFailed("no server answers")
    with pytest.raises(ChallengeFailed):
        await have(manager, NAME)
    with pytest.raises(BackingOff, match=r"a\.example\.test\+rsa: retry in 60 s"):
        await have(manager, OTHER)
    assert len(issuer.orders) == 1


async def test_kinds_of_one_name_have_one_turn(
    manager: Manager, issuer: FakeIssuer, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else two orders would share an authorization, and the first that is done would withdraw the proof of both."""
    leases, obtain = [], issuer.obtain

    async def noted(*arguments: Any) -> Certificate:
        leases.append(memory.keys("leases/"))
        return await obtain(*arguments)

    monkeypatch.setattr(issuer, "obtain", noted)
    await asyncio.gather(have(manager, NAME), have(manager, OTHER))
    assert leases == [[f"leases/{NAME}"]] * 2


async def test_permission_is_asked_for_a_name(make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator's service knows no kinds of keys."""
    asked: list[str] = []

    async def allow(_: AskClient, name: ServerName, *, anew: bool) -> None:
        assert not anew
        asked.append(name)

    monkeypatch.setattr(AskClient, "require", allow)
    await have(make_manager(acme_key_type=BOTH, acme_ask="http://127.0.0.1:1/"), OTHER)
    assert asked == [NAME]


async def test_managed_certificates_of_both_kinds_are_held_and_renewed(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock
) -> None:
    """From the start, and for as long as they are listed."""
    manager = make_manager(acme_key_type=BOTH, acme_certificates=("m.test",))
    renewer = manager.make_renewer()
    await round_of(renewer)
    ids = [ServerName("m.test"), ServerName("m.test+rsa")]
    held = [manager.cache.get(id) for id in ids]
    assert [certificate and certificate.key_type for certificate in held] == [*BOTH]
    assert len(issuer.orders) == 2

    clock.advance(70 * DAY)
    await round_of(renewer)
    renewed = [manager.cache.get(id) for id in ids]
    assert [certificate and certificate.key_type for certificate in renewed] == [*BOTH]
    assert sorted(subject.id for subject in issuer.orders[2:]) == ids
    assert all(new and old and new.fingerprint != old.fingerprint for new, old in zip(renewed, held, strict=True))


async def test_kind_that_is_deleted_leaves_the_other(manager: Manager, memory: Memory) -> None:
    """Each has a life of its own, in storage and in memory."""
    await have(manager, NAME)
    await have(manager, OTHER)
    await manager.revoke(OTHER, "superseded")
    assert stored(memory) == [NAME]
    assert manager.cache.get(NAME) is not None
    assert manager.cache.get(OTHER) is None


async def test_stored_certificate_of_the_wrong_kind_is_replaced_but_better_than_none(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock
) -> None:
    """Who adds a preferred kind has the other under the plain name: it is served until the wanted one is there."""
    old = await have(make_manager(acme_key_type=("rsa-2048",)), NAME)
    manager = make_manager(acme_key_type=BOTH)
    issuer.error = IssuerUnavailable("down")
    assert (await have(manager, NAME)).fingerprint == old.fingerprint
    assert [entry.id for entry in manager.schedule.due_by(clock())] == [NAME]  # to be looked at now
    issuer.error = None
    clock.advance(DAY)
    await round_of(manager.make_renewer())
    held = manager.cache.get(NAME)
    assert held is not None
    assert held.key_type == "ecdsa-p256"
    assert [subject.key_type for subject in issuer.orders] == ["rsa-2048", "ecdsa-p256", "ecdsa-p256"]


async def test_managed_certificate_of_the_wrong_kind_is_replaced_at_the_start(make_manager: MakeManager) -> None:
    """It would otherwise be what clients get that it was not made for."""
    name = ServerName("m.test")
    of_one = make_manager(acme_key_type=("rsa-2048",), acme_certificates=(name,))
    assert (await of_one.ensure(of_one.config.managed[0])).key_type == "rsa-2048"
    of_two = make_manager(acme_key_type=BOTH, acme_certificates=(name,))
    assert [(await of_two.ensure(subject)).key_type for subject in of_two.config.managed] == [*BOTH]


async def test_one_kind_that_is_changed_is_replaced_at_its_renewal(
    make_manager: MakeManager, issuer: FakeIssuer
) -> None:
    """If only one kind is served, clients never relied on another."""
    await have(make_manager(), NAME)
    assert (await have(make_manager(acme_key_type=("rsa-2048",)), NAME)).key_type == "ecdsa-p256"
    assert len(issuer.orders) == 1


async def test_data_node_asks_for_the_kind_that_it_needs(make_manager: MakeManager, issuer: FakeIssuer) -> None:
    """The control node orders exactly that."""
    control = make_manager(acme_key_type=BOTH, acme_role="control", acme_storage="file:")
    data = make_manager(acme_key_type=BOTH, acme_role="data", acme_storage="file:")
    feed = control.make_cluster_sync()
    await feed.sync()
    asking = asyncio.ensure_future(have(data, OTHER))
    while not asking.done():
        await feed.sync()
        await asyncio.sleep(0.01)
    assert (await asking).key_type == "rsa-2048"
    assert [subject.id for subject in issuer.orders] == [OTHER]
    await feed.close()


async def test_kind_that_is_served_no_more_is_not_ours(make_manager: MakeManager, issuer: FakeIssuer) -> None:
    """It is neither served nor renewed, and dies in the storage."""
    await have(make_manager(acme_key_type=BOTH), OTHER)
    manager = make_manager()
    with pytest.raises(NameNotAllowed):
        await have(manager, OTHER)
    assert (await have(manager, NAME)).id == NAME
    assert [subject.id for subject in issuer.orders] == [OTHER, NAME]


def test_key_type_of_a_certificate() -> None:
    """It is written as the option is."""
    assert make_certificate([NAME]).key_type == "ecdsa-p256"
    assert make_certificate([NAME], key=RSA_KEY).key_type == "rsa-2048"
