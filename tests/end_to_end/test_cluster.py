"""Nodes that share a storage behave as one: on every store, with a real CA, and when one of them is killed."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from acme_storage import open_storage
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.certificate import Certificate
from mitmproxy_acme.core.names import ServerName, Subject
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.store.lease import LEASE_TTL
from tests.end_to_end.client import eventually, handshake, handshakes
from tests.end_to_end.conftest import default_options
from tests.servers import stores
from tests.servers.forked import Forked
from tests.servers.gate import Gate
from tests.servers.mitmdump import Mitmdump, Option
from tests.servers.pebble import ChallTestSrv, Pebble, Seen
from tests.servers.stores import Place
from tests.servers.upstream import Upstream

type FreshName = Callable[[], str]

_SEEN_BY_ALL = 10  # seconds
# After which of an order's seven requests a node is killed: each on the default store, and on two others at least.
_KILLED_AFTER = {
    "file": (1, 2, 3, 4, 5, 6, 7),
    "sqlite": (1, 3, 6),
    "postgresql": (2, 4, 7),
    "redis": (1, 3, 5),
    "consul": (2, 4, 6),
    "vault": (3, 5, 7),
}


@dataclass
class Cluster:
    """Nodes on one store, and a CA whose validations all arrive at the first of them, whichever ordered."""

    place: Place
    ca: Pebble
    root: str
    nodes: list[Mitmdump]

    def do_as_node(self, work: Callable[[Manager], Awaitable[None]]) -> None:
        """Do as one more node does, in this process."""
        options = default_options(self.ca, Path("/none")) | {"acme_domains": ("**.example.test",)}
        manager = Manager(Config.from_options(options), open_storage(self.place.open_url, default_folder=Path("/none")))

        async def do() -> None:
            await work(manager)
            await manager.close()

        asyncio.run(do())


def node(place: Place, ca: Pebble, upstream: Upstream, http_port: int | None = None, **options: Option) -> Mitmdump:
    """A proxy on this store that says all it can in its log; not started yet."""
    defaults = default_options(ca, Path("/none")) | {"acme_storage": place.url, "termlog_verbosity": "debug"}
    defaults["acme_handshake_wait"] = 45  # 30 visitors at once, beside whatever else runs
    proxy = Forked(upstream.url, defaults | options, http_port=http_port)
    proxy.environment |= place.environment
    return proxy


@pytest.fixture(scope="module", params=stores.KINDS)
def cluster(
    request: pytest.FixtureRequest, dns: ChallTestSrv, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """Three nodes; at the end their logs are searched for secrets."""
    with ExitStack() as stack:
        place = stack.enter_context(stores.running(request.param, tmp_path_factory.mktemp(request.param)))
        ca = stack.enter_context(Pebble(dns))
        nodes = [node(place, ca, upstream, port) for port in (ca.http_port, None, None)]
        for running in nodes:
            stack.callback(running.close)
        with ThreadPoolExecutor(len(nodes)) as pool:
            list(pool.map(Mitmdump.start, nodes))
        yield Cluster(place, ca, ca.root(), nodes)
        for running in nodes:
            log = running.log.read_text(errors="replace")
            assert not [secret for secret in (*place.secrets, "PRIVATE KEY") if secret in log]
            assert "Traceback" not in log


def test_cold_names_asked_at_all_nodes_are_ordered_once(cluster: Cluster, fresh_name: FreshName) -> None:
    """Ten names at three nodes at once: ten orders, ten certificates, one account; every node serves the same ones."""
    names = [fresh_name() for _ in range(10)]

    with ThreadPoolExecutor(len(cluster.nodes)) as pool:
        visits = [pool.submit(handshakes, proxy.https_port, names, cluster.root) for proxy in cluster.nodes]
        first, *others = [[one.leaf.serial_number for one in visit.result()] for visit in visits]

    assert len(set(first)) == 10
    assert others == [first, first]
    seen = cluster.ca.seen()
    assert (seen.certificates, seen.orders) == (10, 10)
    assert set(re.findall(r"There are now (\d+) accounts", cluster.ca.log_text())) == {"1"}


def test_challenge_arrives_at_another_node_than_the_one_that_ordered(cluster: Cluster, fresh_name: FreshName) -> None:
    """The CA comes to the first node; each node obtains certificates all the same."""
    for proxy in cluster.nodes:
        name = fresh_name()
        assert handshake(proxy.https_port, name, cluster.root).names == [name]
        assert f"{name}: certificate by" in proxy.log_text()


def test_renewal_by_one_node_is_served_by_all(cluster: Cluster, fresh_name: FreshName) -> None:
    """Of a certificate that no other node would read yet, because it is young; within ten seconds."""
    name = ServerName(fresh_name())
    old = [handshake(proxy.https_port, name, cluster.root).leaf for proxy in cluster.nodes]

    async def renew(manager: Manager) -> None:
        held = await manager.certificate_for(name, on_demand=True)
        assert held is not None
        assert held.leaf == old[0]
        await manager.obtain(Subject((name,)), replacing=held)

    cluster.do_as_node(renew)

    _eventually_all_serve_another(cluster, name, old[0])
    assert len({handshake(proxy.https_port, name, cluster.root).leaf.serial_number for proxy in cluster.nodes}) == 1


def test_deletion_by_one_node_is_seen_by_all(cluster: Cluster, fresh_name: FreshName) -> None:
    """The certificate is served nowhere any more within ten seconds; the next visit orders another, once."""
    name = ServerName(fresh_name())
    old = [handshake(proxy.https_port, name, cluster.root).leaf for proxy in cluster.nodes]
    before = cluster.ca.seen()

    cluster.do_as_node(lambda manager: manager.delete(name))

    _eventually_all_serve_another(cluster, name, old[0])
    assert (cluster.ca.seen() - before).orders == 1


def _eventually_all_serve_another(cluster: Cluster, name: str, old: x509.Certificate) -> None:
    deadline = time.monotonic() + _SEEN_BY_ALL
    for proxy in cluster.nodes:
        while handshake(proxy.https_port, name, cluster.root).leaf == old:
            assert time.monotonic() < deadline, f"not seen in {_SEEN_BY_ALL} s"
            time.sleep(0.05)


def test_renewals_are_done_once_and_go_on_when_a_node_dies(
    dns: ChallTestSrv, upstream: Upstream, fresh_name: FreshName, tmp_path: Path
) -> None:
    """Ten short-lived certificates on three nodes, one of which is killed: each renewal is one order, none is late."""
    names = [fresh_name() for _ in range(10)]
    with ExitStack() as stack:
        place = stack.enter_context(stores.running("redis", tmp_path))
        # due after 5 s, and then 15 s are left: longer than a lease of the dead
        ca = stack.enter_context(Pebble(dns, profiles={"short": 21}))
        ports = (ca.http_port, None, None)
        # no client asks again: with acme_idle=on their second renewal would be left out
        nodes = [node(place, ca, upstream, port, acme_renew_before="75%", acme_idle="off") for port in ports]
        for running in nodes:
            stack.enter_context(running)
        handshakes(nodes[1].https_port, names, ca.root())
        store = open_storage(place.open_url, default_folder=Path("/none"))
        stored: dict[str, set[int]] = {name: set() for name in names}

        def all_renewed(times: int) -> bool:
            for name in names:
                record = store.get(f"certificates/{name}")
                assert record is not None
                leaf = Certificate.from_record(ServerName(name), record).leaf
                assert time.time() < leaf.not_valid_after_utc.timestamp()
                stored[name].add(leaf.serial_number)
            return all(len(serials) > times for serials in stored.values())

        eventually(lambda: all_renewed(1), timeout=20)
        nodes[1].kill()
        eventually(lambda: all_renewed(2), timeout=20)
        store.close()
        assert ca.seen().certificates == sum(len(serials) for serials in stored.values())


def test_killed_at_each_request_another_node_completes_the_name(
    dns: ChallTestSrv, upstream: Upstream, fresh_name: FreshName, tmp_path: Path
) -> None:
    """On every store: a node is killed when the CA has seen its n-th request, and the other one goes on from there.

    Within a lease, and with two orders at most: the dead one's and its own. The stores are tried side by side.
    """

    def try_store(kind: str) -> None:
        folder = tmp_path / kind
        folder.mkdir()
        with (
            stores.running(kind, folder) as place,
            Pebble(dns) as ca,
            Gate(ca, folder / "gate") as gate,
            ExitStack() as stack,
        ):
            survivor = stack.enter_context(node(place, ca, upstream, ca.http_port))
            doomed = node(place, ca, upstream, acme_ca=[gate.directory], acme_ca_bundle=str(gate.ca_bundle))
            stack.callback(doomed.close)
            kills = _KILLED_AFTER[kind]
            slowest, seen = _kill_after(kills, doomed, survivor, gate, ca, fresh_name)
            assert slowest < LEASE_TTL + 4, f"{kind}: {slowest:.1f} s"
            assert seen.orders == 2 * len(kills), kind
            assert len(kills) <= seen.certificates <= 2 * len(kills), kind

    with ThreadPoolExecutor(len(stores.KINDS)) as side_by_side:
        for done in [side_by_side.submit(try_store, kind) for kind in stores.KINDS]:
            done.result()


def _kill_after(
    requests: Sequence[int], doomed: Mitmdump, survivor: Mitmdump, gate: Gate, ca: Pebble, fresh_name: FreshName
) -> tuple[float, Seen]:
    """Return the seconds that the slowest visit at the survivor took, and what the CA saw."""
    root = ca.root()
    doomed.start()
    for proxy in (doomed, survivor):
        handshake(proxy.https_port, fresh_name(), root)  # makes the account, behind the gate and before it
    doomed.kill()
    before, connected = ca.seen(), 2  # the directory and the first nonce
    with ThreadPoolExecutor(2 * len(requests)) as pool:
        visits = []
        for number in requests:
            name = fresh_name()
            doomed.start()
            gate.hold(connected + number)
            pool.submit(_visit, doomed, name, root)
            assert gate.held.wait(20), f"request {number} was never made"
            doomed.kill()
            gate.open()
            visits.append(pool.submit(_timed_visit, survivor, name, root))
        return max(visit.result() for visit in visits), ca.seen() - before


def _visit(proxy: Mitmdump, name: str, root: str) -> None:
    """Ask for a name; what becomes of it is not looked at."""
    with suppress(OSError):
        handshake(proxy.https_port, name, root)


def _timed_visit(proxy: Mitmdump, name: str, root: str) -> float:
    """Return the seconds until a trusted handshake."""
    return handshake(proxy.https_port, name, root).milliseconds / 1000
