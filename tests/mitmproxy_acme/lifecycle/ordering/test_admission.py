"""The limits of new names: of each client, and of all visitors of a node."""

import asyncio
import gc
import itertools
import tracemalloc
from collections.abc import Iterator

import pytest

from acme_storage.memory import Memory
from mitmproxy_acme.config.orders_per_client import OrdersPerClient
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.errors import BackingOff, ChallengeFailed, ClientLimited, ConfigError, IssuanceError, Problem
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.core.rate_limits import Limit
from mitmproxy_acme.lifecycle.ordering.admission import Admission
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import AtOnce, Clock, Counting, FakeIssuer, make_certificate, manager_on

HOUR = 3_600.0
CLIENT, NEIGHBOUR, OTHER = "203.0.113.7", "203.0.113.200", "198.51.100.9"
PUBLIC, ALSO_PUBLIC = "9.9.9.9", "8.8.8.8"


def new(number: int) -> ServerName:
    return ServerName(f"n{number}.example.test")


@pytest.mark.parametrize(
    ("text", "address", "key"),
    [
        ("5/1h", "203.0.113.7", "203.0.113.0/24"),
        ("5/1h", "::ffff:203.0.113.7", "203.0.113.0/24"),
        ("5/1h", "2001:db8:1:2::3", "2001:db8:1::/48"),
        ("5/1h", "127.0.0.1", "127.0.0.0/24"),
        ("5/1h", "fe80::1%eth0", "fe80::/48"),
        ("5/1h", "/run/proxy.sock", None),
        ("5/1h", None, None),
        ("auto", "9.9.9.9", "9.9.9.0/24"),
        ("auto", "2620:fe::9", "2620:fe::/48"),
        ("auto", "127.0.0.1", None),
        ("auto", "10.1.2.3", None),
        ("auto", "::1", None),
        ("auto", "fd00::1", None),
        ("off", "9.9.9.9", None),
    ],
)
def test_clients_count_by_their_network(text: str, address: str | None, key: str | None) -> None:
    """By default a private address does not count: a load balancer is one client for everybody behind it."""
    assert OrdersPerClient.parse(text).key(address) == key


@pytest.mark.parametrize("text", ["", "many", "0/1h", "5", "5/", "100/1s"])
def test_wrong_bound_stops_the_start(text: str) -> None:
    """One sentence names the option, and what would be right."""
    with pytest.raises(ConfigError, match=r"^acme_orders_per_client: .*; or auto, or off for no limit$"):
        OrdersPerClient.parse(text)


def test_client_brings_so_many_and_more_as_time_passes(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Its neighbours count with it, others do not; the log says it once in the window."""
    admission = Admission(OrdersPerClient.parse("3/1h"), clock)
    for number in range(3):
        admission.admit(Subject((new(number),)), CLIENT)
    for client in (CLIENT, NEIGHBOUR, CLIENT):
        with pytest.raises(
            ClientLimited, match=r"n9\.example\.test: this client can bring the next new name in 20 min"
        ):
            admission.admit(Subject((new(9),)), client)
    admission.admit(Subject((new(9),)), OTHER)
    assert caplog.text.count("acme_orders_per_client") == 1
    assert "clients in 203.0.113.0/24 have brought 3 new names in 60 min" in caplog.text
    clock.advance(HOUR / 3)
    admission.admit(Subject((new(9),)), CLIENT)
    with pytest.raises(ClientLimited):
        admission.admit(Subject((new(10),)), CLIENT)


async def test_bound_of_a_client_is_no_one_elses(make_manager: MakeManager, issuer: FakeIssuer) -> None:
    """Another client gets the name at once; what is stored, listed or asked for by a person never counts."""
    manager = make_manager(acme_certificates=("managed.test",))
    for number in range(20):
        assert await manager.certificate_for(new(number), on_demand=True, client=PUBLIC)
    with pytest.raises(ClientLimited):
        await manager.certificate_for(new(20), on_demand=True, client=PUBLIC)
    assert await manager.certificate_for(new(20), on_demand=True, client=ALSO_PUBLIC)

    assert await manager.certificate_for(new(20), on_demand=True, client=PUBLIC)
    assert await manager.certificate_for(ServerName("managed.test"), on_demand=True, client=PUBLIC)
    expired = make_certificate([new(21)], now=manager.now() - 100, lifetime=50)
    assert manager.store.replace(manager.store.slot(new(21)), expired)
    assert await manager.certificate_for(new(21), on_demand=True, client=PUBLIC)
    assert await manager.issue(Subject((new(22),)))
    assert len(issuer.orders) == 24


async def test_private_network_is_not_bounded_by_default(make_manager: MakeManager, issuer: FakeIssuer) -> None:
    """Behind a load balancer all clients have its address."""
    manager = make_manager()
    for number in range(25):
        assert await manager.certificate_for(new(number), on_demand=True, client="10.0.0.1")


async def test_person_has_what_a_client_may_not_bring(make_manager: MakeManager, issuer: FakeIssuer) -> None:
    """The refusal of one client is not repeated to another."""
    manager = make_manager(acme_orders_per_client="1/1h")
    assert await manager.certificate_for(new(1), on_demand=True, client=CLIENT)
    for _ in range(3):
        with pytest.raises(ClientLimited):
            await manager.certificate_for(new(2), on_demand=True, client=CLIENT)
    assert await manager.issue(Subject((new(2),)))
    assert await manager.certificate_for(new(2), on_demand=True, client=CLIENT)


@pytest.fixture
def twentieth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Divide the limits of a node by twenty, so that 3,000 names do what 60,000 would."""
    monkeypatch.setattr("mitmproxy_acme.lifecycle.ordering.admission._NEW_NAMES", Limit(100, HOUR))
    monkeypatch.setattr("mitmproxy_acme.lifecycle.ordering.admission._FRUITLESS", Limit(1_000, 100.0))
    monkeypatch.setattr("mitmproxy_acme.store.new_names._MOST", 50)
    monkeypatch.setattr("mitmproxy_acme.lifecycle.negative_cache._REFUSALS", 500)
    monkeypatch.setattr("mitmproxy_acme.lifecycle.ordering.backoff_registry._REMEMBERED", 500)


@pytest.fixture(params=["allow-listed", "any name"])
def names(request: pytest.FixtureRequest) -> Iterator[ServerName]:
    numbers = itertools.count()
    if request.param == "any name":
        return (ServerName(f"www.invented-{number}.example") for number in numbers)
    return (ServerName(f"invented-{number}.example.test") for number in numbers)


REFUSED = ChallengeFailed("dns: no such host", problem=Problem("dns", "x" * 200))


@pytest.mark.usefixtures("twentieth")
@pytest.mark.parametrize("error", [REFUSED, None], ids=["the CA refuses", "the CA issues"])
async def test_flood_of_invented_names_is_bounded(
    names: Iterator[ServerName],
    memory: Memory,
    clock: Clock,
    issuer: FakeIssuer,
    caplog: pytest.LogCaptureFixture,
    error: IssuanceError | None,
) -> None:
    """3,000 names: orders, storage calls, records, log lines and memory stay within their limits.

    An order costs at most 40 storage calls here, and a refused name at most one lookup.
    """
    caplog.set_level("INFO")
    issuer.error, storage = error, Counting(memory)
    manager = manager_on(storage, clock, issuer, threads=AtOnce(), acme_allow_any_domain=True)

    async def visit(name: ServerName) -> None:
        with pytest.raises(IssuanceError) if error else _nothing():
            await manager.certificate_for(name, on_demand=True)

    async def flood(count: int) -> None:
        for _ in range(count // 100):
            await asyncio.gather(*(visit(next(names)) for _ in range(100)))

    await flood(1_500)
    calls, lines = storage.calls.total(), len(caplog.records)
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    await flood(1_500)
    gc.collect()  # what the last hundred have left is not kept
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(issuer.orders) == 100
    assert calls <= 1_000 + 100 * 40
    assert storage.calls.total() == calls  # nothing more, however many names come
    assert len(memory.keys("backoffs/")) == (50 if error else 0)
    assert len(memory.keys("")) <= 4 * 100
    if error:
        assert len([r for r in caplog.records if r.levelname == "WARNING"]) <= 25
    assert len(caplog.records) == lines
    assert after - before < 500 * 1_200  # of which 500 refusals are kept
    await manager.close()


class _nothing:
    """Without any failure: the first names are issued, the others are not."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, BackingOff)


@pytest.mark.usefixtures("twentieth")
async def test_failing_name_is_not_retried_at_each_visit_though_it_is_not_stored(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock, memory: Memory
) -> None:
    """Beyond the records that are stored, this node remembers; and each record ends with its backoff."""
    issuer.error = REFUSED
    manager = make_manager()
    for _ in range(2):
        for number in range(75):
            with pytest.raises(IssuanceError):
                await manager.certificate_for(new(number), on_demand=True)
        clock.advance(20)  # longer than refusals are repeated
    assert len(issuer.orders) == 75
    assert len(memory.keys("backoffs/")) == 50
    clock.advance(2 * HOUR)
    assert memory.keys("backoffs/") == []


async def test_failures_in_a_row_are_counted_though_records_end_early(
    make_manager: MakeManager, issuer: FakeIssuer, clock: Clock
) -> None:
    """Each node waits longer each time, as ``acme_fail_backoff`` says."""
    issuer.error = REFUSED
    for wait in (60, 600, 6_000, 86_400):
        with pytest.raises(ChallengeFailed):
            await make_manager().certificate_for(new(1), on_demand=True)
        with pytest.raises(BackingOff):
            await make_manager().certificate_for(new(1), on_demand=True)
        clock.advance(wait + 1)
    assert len(issuer.orders) == 4


async def test_orders_that_hang_are_in_nobodys_way(
    make_manager: MakeManager, issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a slow CA delays a flood of names, stored and managed names are served, and a person can order."""
    monkeypatch.setattr("mitmproxy_acme.lifecycle.ordering.order_gate._MOST_ORDERS", 50)
    manager, go, obtain = make_manager(acme_certificates=("managed.test",)), asyncio.Event(), issuer.obtain
    stored = make_certificate([new(1)], now=manager.now())
    assert manager.store.replace(manager.store.slot(new(1)), stored)

    async def slowly(subject: Subject, replacing: Certificate | None = None) -> Certificate:
        if subject.name.startswith("n1"):
            await go.wait()
        return await obtain(subject, replacing)

    monkeypatch.setattr(issuer, "obtain", slowly)
    flood = [asyncio.ensure_future(manager.certificate_for(new(100 + n), on_demand=True)) for n in range(60)]
    refused, under_way = await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
    while len(refused) < 10:
        refused, under_way = await asyncio.wait(flood, timeout=0.05)

    assert {str(task.exception()).partition(": ")[2] for task in refused} == {"50 names are being ordered already"}
    assert await manager.certificate_for(new(1), on_demand=True)
    assert await manager.certificate_for(ServerName("managed.test"), on_demand=True)
    assert await manager.issue(Subject((ServerName("person.example.test"),)))
    go.set()
    assert all(await asyncio.gather(*under_way))


def test_clock_that_was_ahead_for_a_moment_keeps_no_visitor_away(clock: Clock) -> None:
    """It was a day ahead when a lookup found nothing, and when a client brought a name: neither is held against any."""
    admission = Admission(OrdersPerClient.parse("3/1h"), clock)
    clock.advance(86_400)
    admission.count_fruitless()
    admission.admit(Subject((new(1),)), CLIENT)
    clock.advance(-86_400)
    admission.require_lookup(Subject((new(2),)))
    admission.admit(Subject((new(2),)), CLIENT)


def test_lookups_that_find_nothing_are_bounded(clock: Clock) -> None:
    """20,000 at once, and 200 a second after that: a storage has other work to do."""
    admission, subject = Admission(OrdersPerClient.parse("off"), clock), Subject((new(1),))

    def lookups() -> int:
        """How many are made until the next one is refused."""
        for made in itertools.count():
            try:
                admission.require_lookup(subject)
            except BackingOff:
                return made
            admission.count_fruitless()
        raise AssertionError

    assert 19_900 <= lookups() <= 20_000
    with pytest.raises(BackingOff, match="visitors ask for too many names") as caught:
        admission.require_lookup(subject)
    assert caught.value.until == clock() + 1
    clock.advance(1)
    assert 190 <= lookups() <= 200
    clock.advance(100)
    assert 19_900 <= lookups() <= 20_000
