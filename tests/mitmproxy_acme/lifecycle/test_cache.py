"""Which certificate is in memory: the one that lasts, for as long as it lasts, and of what was used last."""

from dataclasses import replace

import pytest

from acme_storage.memory import Memory
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.errors import ChallengeFailed, RecordRefused
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.lifecycle import cache as cache_module
from mitmproxy_acme.lifecycle.cache import Cache
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.store.store import Slot
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import DIRECTORY, EPOCH, Clock, make_certificate

A, B, C = (ServerName(f"{letter}.example.test") for letter in "abc")
WILD = ServerName("*.example.test")


@pytest.fixture
def manager(make_manager: MakeManager) -> Manager:
    return make_manager()


@pytest.fixture
def cache(manager: Manager) -> Cache:
    return manager.cache


def store(memory: Memory, certificate: Certificate) -> None:
    memory.put(f"certificates/{certificate.id}", certificate.to_record())


def test_certificate_is_served_until_its_end_and_not_at_it(cache: Cache, clock: Clock) -> None:
    """By name, by id, and in the list."""
    held = cache.put(Subject((A,)), make_certificate([A], lifetime=100))
    clock.time = held.not_after - 0.1
    assert cache.get(A) is cache.find(Subject((A,))) is cache.held()[A] is held
    clock.time = held.not_after
    assert cache.get(A) is cache.find(Subject((A,))) is None
    assert cache.held() == {}


def test_wildcard_is_served_where_the_names_own_is_missing_or_over(cache: Cache, clock: Clock) -> None:
    """For one label; and it is not the certificate of that name."""
    wild = cache.put(Subject((WILD,)), make_certificate([WILD]))
    own = cache.put(Subject((A,)), make_certificate([A], lifetime=100))
    assert cache.get(A) is own
    assert cache.get(B) is wild
    assert cache.get(ServerName("x.a.example.test")) is None
    clock.advance(100)
    assert cache.get(A) is wild
    assert cache.find(Subject((A,))) is None
    assert cache.find(Subject((WILD,))) is wild


def test_expired_wildcard_is_served_for_no_name(cache: Cache, clock: Clock) -> None:
    """Neither where it is the only one, nor where the name's own has expired too."""
    wild = cache.put(Subject((WILD,)), make_certificate([WILD], lifetime=200))
    cache.put(Subject((A,)), make_certificate([A], lifetime=100))
    clock.time = wild.not_after - 0.1
    assert cache.get(A) is cache.get(B) is wild
    clock.time = wild.not_after
    assert [cache.get(A), cache.get(B), cache.get(WILD), cache.find(Subject((WILD,)))] == [None] * 4


def test_hits_and_misses_are_counted(cache: Cache, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them for each handshake; what has expired is a miss."""
    counted = list[bool]()
    monkeypatch.setattr(cache._measures, "cache", lambda *, hit: counted.append(hit))
    held = cache.put(Subject((A,)), make_certificate([A], lifetime=100))
    cache.get(A)
    cache.get(B)
    clock.time = held.not_after
    cache.get(A)
    assert counted == [True, False, False]


def test_least_recently_used_name_goes_first(make_manager: MakeManager) -> None:
    """Beyond ``acme_cache_size`` names, and not before."""
    cache = make_manager(acme_cache_size=2).cache
    for name in (A, B):
        cache.put(Subject((name,)), make_certificate([name]))
    assert cache.get(A) is not None
    assert len(cache) == 2
    cache.put(Subject((C,)), make_certificate([C]))
    assert [cache.get(name) is not None for name in (A, B, C)] == [True, False, True]


def test_all_names_of_a_certificate_have_it(cache: Cache) -> None:
    """Until the one of its id is forgotten; the others stay."""
    both, other = Subject((A, B)), Subject((C,))
    held = cache.put(both, make_certificate([A, B]))
    kept = cache.put(other, make_certificate([C]))
    assert cache.get(A) is cache.get(B) is cache.find(both) is held
    assert len(cache) == 3
    cache.forget(B)
    assert cache.get(B) is held
    cache.forget(A)
    assert cache.get(A) is cache.get(B) is None
    assert cache.get(C) is kept


def test_earlier_certificate_does_not_come_back(cache: Cache, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """However it came into the storage: said once, while the later one lasts."""
    subject = Subject((A,))
    earlier = make_certificate([A], now=EPOCH - 10 * DAY)
    later = cache.put(subject, make_certificate([A]))
    for _ in range(3):
        cache.put(subject, earlier)
        assert cache.get(A) is later
    assert caplog.text.count("somebody put back an earlier record") == 1
    clock.time = later.not_after
    renewed = make_certificate([A], now=later.not_after - 1)
    assert cache.put(subject, renewed) is renewed
    assert cache.get(A) is renewed


def test_later_certificate_replaces_though_it_ends_sooner(cache: Cache) -> None:
    """As after a change to a CA of short lifetimes."""
    cache.put(Subject((A,)), make_certificate([A]))
    short = make_certificate([A], now=EPOCH + 1, lifetime=6 * DAY)
    cache.put(Subject((A,)), short)
    assert cache.get(A) is short


def test_refusal_of_a_name_ends_with_its_certificate(cache: Cache) -> None:
    """It was remembered for the next visitors."""
    cache._refusals.remember(A, ChallengeFailed("no"))
    cache.put(Subject((A,)), make_certificate([A]))
    cache._refusals.repeat(A)


def test_ca_that_delivers_intermediates_is_known(cache: Cache) -> None:
    """One whose certificates have none is not."""
    cache.put(Subject((B,)), replace(make_certificate([B], ca="https://rooted.test/"), chain=()))
    assert cache.chained == set()
    cache.put(Subject((A,)), make_certificate([A]))
    assert cache.chained == {DIRECTORY}


async def test_what_is_overdue_is_read_again(manager: Manager, memory: Memory, clock: Clock) -> None:
    """Another node may have renewed it. What has expired goes; what is not due is not read."""
    cache = manager.cache
    for name, age in ((A, 70), (B, 10), (C, 91)):
        held = make_certificate([name], now=EPOCH - age * DAY)
        store(memory, held)
        cache.put(Subject((name,)), held)
    renewed = make_certificate([A])
    store(memory, renewed)
    store(memory, make_certificate([B], now=EPOCH - 5 * DAY))
    assert [held.id for held in await cache.refresh()] == [A]
    found = cache.get(A)
    assert found is not None
    assert found.fingerprint == renewed.fingerprint
    assert len(cache) == 2


async def test_only_what_was_used_last_is_read_again(
    manager: Manager, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Idle names stay overdue for weeks."""
    monkeypatch.setattr(cache_module, "_MOST_OVERDUE", 2)
    for name in (A, B, C):
        held = make_certificate([name], now=EPOCH - 70 * DAY)
        store(memory, held)
        manager.cache.put(Subject((name,)), held)
    manager.cache.get(A)
    assert {held.id for held in await manager.cache.refresh()} == {A, C}


async def test_what_is_no_longer_stored_is_named_and_served_on(
    manager: Manager, memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A storage that lost its values is no reason to order all of them; one that cannot be read has lost none."""
    for name in (A, B, C):
        manager.cache.put(Subject((name,)), make_certificate([name]))
    slot = manager.store.slot

    def read(id: ServerName) -> Slot:
        if id == B:
            raise RecordRefused("sealed")
        return Slot(None, None, corrupt=True) if id == C else slot(id)

    monkeypatch.setattr(manager.store, "slot", read)
    assert await manager.cache.reload() == {A}
    assert await manager.cache.reload(frozenset({B, C})) == set()
    assert None not in [manager.cache.get(name) for name in (A, B, C)]
