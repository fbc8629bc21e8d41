"""Managed wildcards: which names they serve, and that they live as other certificates do."""

from dataclasses import replace

import pytest

from acme_storage.memory import Memory
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.errors import NameNotAllowed
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.lifecycle.manager import Manager
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import Clock, FakeIssuer, make_certificate
from tests.mitmproxy_acme.lifecycle.renewal.test_renewer import live, round_of

WILDCARD = ServerName("*.w.test")
NAME = ServerName("www.w.test")
OPTIONS = {"acme_challenges": ("dns-01",), "acme_domains": ("**.w.test",), "acme_certificates": (WILDCARD,)}


@pytest.fixture
def manager(make_manager: MakeManager) -> Manager:
    return make_manager(**OPTIONS)


def subject_of(name: str, *managed: str) -> Subject | None:
    options = OPTIONS | {"acme_certificates": managed, "acme_tos_accepted": True}
    return Config.from_options(options).subject(ServerName(name))


def test_exact_name_then_wildcard_then_on_demand() -> None:
    """A wildcard matches one label: not the apex, and not two labels (RFC 6125 section 6.4.3)."""
    managed = ("x.w.test,z.w.test", WILDCARD)
    exact, wildcard = Subject((ServerName("x.w.test"), ServerName("z.w.test")), True), Subject((WILDCARD,), True)
    assert [subject_of(name, *managed) for name in ("x.w.test", "z.w.test")] == [exact, exact]
    assert [subject_of(name, *managed) for name in ("y.w.test", WILDCARD)] == [wildcard, wildcard]
    for other in ("w.test", "a.b.w.test"):
        assert subject_of(other, *managed) == (Subject((ServerName(other),)) if other != "w.test" else None)


def test_wildcard_is_never_on_demand() -> None:
    """Not even for the calendar of a storage that has one, where the names below it are."""
    assert subject_of(WILDCARD) is None
    assert subject_of("*.a.w.test") is None


def test_challenge_of_a_wildcard_may_be_answered() -> None:
    """For the name without the star, whether it may have a certificate itself or not."""
    config = Config.from_options(OPTIONS | {"acme_domains": (), "acme_tos_accepted": True})
    assert config.may_be_validated(ServerName("w.test"))
    assert not config.may_be_validated(NAME)
    assert config.is_managed(NAME)


async def test_one_order_serves_every_name_below(manager: Manager, issuer: FakeIssuer) -> None:
    """Also at the first handshake of a name, before which nothing was there."""
    first = await manager.certificate_for(NAME, on_demand=True)
    assert first is not None
    for name in (NAME, ServerName("other.w.test")):
        assert manager.cache.get(name) is first
    for name in (NAME, ServerName("other.w.test")):
        stored = await manager.certificate_for(name, on_demand=False)
        assert stored is not None
        assert stored.fingerprint == first.fingerprint
    assert [subject.names for subject in issuer.orders] == [(WILDCARD,)]
    assert manager.cache.get(ServerName("w.test")) is None
    assert manager.cache.get(ServerName("a.b.w.test")) is None
    with pytest.raises(NameNotAllowed):
        await manager.certificate_for(ServerName("w.test"), on_demand=True)


async def test_own_certificate_goes_first_while_it_is_valid(make_manager: MakeManager, clock: Clock) -> None:
    """An expired certificate of the name itself does not prevent that."""
    manager = make_manager(**OPTIONS | {"acme_certificates": (WILDCARD, NAME)})
    wildcard, own = [await manager.ensure(subject) for subject in manager.config.managed]
    assert manager.cache.get(NAME) is own
    clock.time = own.not_after
    manager.cas[0].issuer.lifetime = 200 * DAY  # type: ignore[attr-defined]  # the fake one
    renewed = await manager.obtain(manager.config.managed[0], replacing=wildcard)
    assert manager.cache.get(NAME) is renewed


async def test_other_nodes_find_it_and_forget_it(make_manager: MakeManager, issuer: FakeIssuer, memory: Memory) -> None:
    """Under one key of the storage, like any other."""
    manager, other = make_manager(**OPTIONS), make_manager(**OPTIONS)
    await manager.certificate_for(NAME, on_demand=True)
    assert await other.certificate_for(NAME, on_demand=True) is not None
    assert len(issuer.orders) == 1
    assert memory.keys("certificates/") == [f"certificates/{WILDCARD}"]
    await manager.delete(WILDCARD)
    assert manager.cache.get(NAME) is None
    await other.make_cluster_sync().sync()
    assert other.cache.get(NAME) is None


async def test_held_from_the_start_and_renewed(manager: Manager, issuer: FakeIssuer, clock: Clock) -> None:
    """The schedule, whose entries have its name, has it renewed in time."""
    renewer = manager.make_renewer()
    await round_of(renewer)
    assert manager.cache.get(NAME) is not None
    await live(renewer, clock, 200 * DAY)
    assert manager.cache.get(NAME) is not None
    assert {subject.id for subject in issuer.orders} == {WILDCARD}
    assert len(issuer.orders) in (3, 4)


async def test_imported_wildcard_is_dropped_with_its_record(make_manager: MakeManager) -> None:
    """It is stored, and held, under the name that it serves, which is none of those that stand in it."""
    manager = make_manager(acme_domains=("a.example.test",))
    name = ServerName("a.example.test")
    wildcard = replace(make_certificate(["*.example.test"]), id=name)
    assert manager.store.replace(manager.store.slot(name), wildcard)
    assert await manager.certificate_for(name, on_demand=True) is not None
    await manager.delete(name)
    assert manager.cache.get(name) is None
