"""dns-01 with this proxy as the nameserver: a real CA asks a real resolver, which asks us."""

import contextlib
import random
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Protocol

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest

from tests.end_to_end.client import eventually, handshake, handshakes, is_trusted
from tests.end_to_end.conftest import StartProxy
from tests.mitmproxy_acme.mitm.dns.test_wire import chain_of_pointers
from tests.servers.base import free_port
from tests.servers.binaries import need
from tests.servers.pebble import Pebble
from tests.servers.powerdns import PowerDns
from tests.servers.unbound import Unbound

ZONE = "acme.example.test"
FOREIGN = dns.message.make_query("www.elsewhere.test", "A").to_wire()


class StartCa(Protocol):
    """Start a CA whose resolver has ``records``, and asks the proxies on ``ports`` for ``zones``."""

    def __call__(self, *ports: int, records: Sequence[str] = (), zones: Sequence[str] = (ZONE,)) -> Pebble: ...


@pytest.fixture
def start_ca() -> Iterator[StartCa]:
    need("pebble", "unbound")
    with ExitStack() as stack:

        def start(*ports: int, records: Sequence[str] = (), zones: Sequence[str] = (ZONE,)) -> Pebble:
            resolver = stack.enter_context(Unbound(dict.fromkeys(zones, ports), records))
            return stack.enter_context(Pebble(resolver))

        yield start


def test_wildcard_and_apex_in_one_certificate(
    proxy: StartProxy, start_ca: StartCa, fresh_name: Callable[[], str]
) -> None:
    """Both values are published under one name, an alias into our zone; names one label below are served with it."""
    apex, port = fresh_name(), free_port()
    ca = start_ca(port, records=[f"_acme-challenge.{apex}. CNAME {apex}.{ZONE}."])
    running = proxy(
        ca=ca,
        dns_port=port,
        acme_challenges=["dns-01"],
        acme_dns_zone=ZONE,
        acme_certificates=[f"{apex},*.{apex}"],
        acme_domains=[],
    )
    eventually(lambda: is_trusted(running.https_port, f"www.{apex}", ca.root()))
    served = handshakes(running.https_port, [apex, f"www.{apex}", f"UPPER.{apex}"], ca.root())
    assert {tuple(visit.names) for visit in served} == {(apex, f"*.{apex}")}
    assert not is_trusted(running.https_port, f"a.b.{apex}", ca.root())
    assert ca.seen().orders == 1


def test_delegated_name_needs_no_zone(proxy: StartProxy, start_ca: StartCa, fresh_name: Callable[[], str]) -> None:
    """``_acme-challenge.NAME`` is delegated by NS alone, even for on-demand names; A-labels are sent in mixed case."""
    names, port = [f"xn--mnchen-3ya.{fresh_name()}", fresh_name()], free_port()
    ca = start_ca(port, zones=[f"_acme-challenge.{name}" for name in names])
    running = proxy(ca=ca, dns_port=port, acme_challenges=["dns-01"])
    assert [served.names for served in handshakes(running.https_port, names, ca.root())] == [[name] for name in names]


def test_nodes_that_order_at_once_answer_for_each_other(
    proxy: StartProxy, start_ca: StartCa, fresh_name: Callable[[], str], tmp_path: Path
) -> None:
    """Three nodes, three certificates with one name in common, and a resolver that asks any of the three."""
    apex, ports = fresh_name(), [free_port() for _ in range(3)]
    records = [f"_acme-challenge.{name}. CNAME {name}.{ZONE}." for name in (apex, f"www.{apex}")]
    ca = start_ca(*ports, records=records)
    lists = [[f"{apex},*.{apex}"], [f"*.{apex}"], [f"www.{apex},{apex}"]]
    nodes = [
        proxy(
            ca=ca,
            storage=tmp_path / "shared",
            http_port=free_port(),
            dns_port=port,
            acme_challenges=["dns-01"],
            acme_dns_zone=ZONE,
            acme_certificates=listed,
            acme_domains=[],
            # A resolver sends one query for all that ask at the same time, perhaps before all records were published.
            acme_fail_backoff="1s",
            start=False,
        )
        for port, listed in zip(ports, lists, strict=True)
    ]
    with ThreadPoolExecutor(len(nodes)) as pool:
        list(pool.map(lambda node: node.start(), nodes))
    for node, name in zip(nodes, (f"a.{apex}", f"b.{apex}", apex), strict=True):
        eventually(partial(is_trusted, node.https_port, name, ca.root()), timeout=20)
    assert ca.seen().certificates == 3


def test_nameserver_is_no_open_resolver(proxy: StartProxy) -> None:
    """Foreign names are refused over UDP and TCP, and no bytes of a stranger stop it or reach another server."""
    port = free_port()
    running = proxy(dns_port=port, acme_challenges=["dns-01"], acme_dns_zone=ZONE)
    for name, type in (("localhost.", "A"), ("www.elsewhere.test.", "A"), ("elsewhere.test.", "TXT"), (".", "NS")):
        query = dns.message.make_query(name, type)
        for ask in (dns.query.udp, dns.query.tcp):
            assert ask(query, "127.0.0.1", port=port, timeout=5).rcode() == dns.rcode.REFUSED
    rng = random.Random(1)
    question = dns.message.make_query(f"n.example.test.{ZONE}", "TXT", use_edns=0).to_wire()
    with socket.socket(type=socket.SOCK_DGRAM) as udp, socket.create_connection(("127.0.0.1", port), 5) as tcp:
        for _ in range(300):
            message = bytearray(question)
            for _ in range(rng.randint(0, 5)):
                message[rng.randrange(len(message))] = rng.randrange(256)
            udp.sendto(message, ("127.0.0.1", port))
            tcp.sendall(len(message).to_bytes(2) + message)
    reply = dns.query.tcp(dns.message.from_wire(question), "127.0.0.1", port=port, timeout=5)
    assert reply.rcode() == dns.rcode.NOERROR
    eventually(lambda: _answers(port, question))  # one of the datagrams may be lost in such a crowd
    log = running.log_text()
    assert "crashed" not in log
    assert "Traceback" not in log
    assert "server connect" not in log


def test_hostile_messages_beside_handshakes(
    proxy: StartProxy, lenient_ca: Pebble, fresh_name: Callable[[], str]
) -> None:
    """Long chains of pointers from thousands of ports: each handshake between them is served, and no memory grows."""
    name, port = fresh_name(), free_port()
    running = proxy(ca=lenient_ca, dns_port=port, acme_challenges=["dns-01"], acme_dns_zone=ZONE)
    root = lenient_ca.root()
    handshake(running.https_port, name, root)
    threads = Path(f"/proc/{running.pid}/task")
    before, log = len(list(threads.iterdir())), running.log.stat().st_size
    zone = dns.message.make_query(f"n.example.test.{ZONE}", "TXT").to_wire()
    silent = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(300)]
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port), 5) as tcp:
            _send(tcp, (65_000).to_bytes(2) + chain_of_pointers(65_000))
        for message in (chain_of_pointers(1_227), chain_of_pointers(1_000), FOREIGN, zone):
            for _ in range(25):
                with socket.socket(type=socket.SOCK_DGRAM) as udp:
                    udp.sendto(message, ("127.0.0.1", port))
        assert handshake(running.https_port, name, root, timeout=10).names == [name]
    assert dns.query.tcp(dns.message.from_wire(FOREIGN), "127.0.0.1", port=port, timeout=5).rcode() == dns.rcode.REFUSED
    for connection in silent:
        connection.close()
    assert len(list(threads.iterdir())) <= before + 8
    with running.log.open() as lines:
        lines.seek(log)
        others = [line for line in lines if " client connect" not in line and " client disconnect" not in line]
    assert running.log.read_text().count("client connect") < 60  # none of those who came to the nameserver
    assert len(others) <= 100  # a few of the questions for our zone are listed


def test_hostile_messages_before_another_nameserver(proxy: StartProxy) -> None:
    """In ``reverse:dns`` mitmproxy's own parser gets queries only, and the upstream's answers come back."""
    need("unbound")
    port = free_port()
    with Unbound({}, ["www.example.test. A 192.0.2.7"]) as upstream:
        running = proxy(start=False, dns_port=port, acme_challenges=["dns-01"], acme_dns_zone=ZONE)
        running.dns_mode = f"reverse:dns://{upstream.address}"
        running.start()
        with socket.socket(type=socket.SOCK_DGRAM) as udp, socket.create_connection(("127.0.0.1", port), 5) as tcp:
            for message in (chain_of_pointers(1_227), FOREIGN[:12] + b"\x01.\0\0\x10\0\1", bytes(20)):
                udp.sendto(message, ("127.0.0.1", port))
            _send(tcp, (65_000).to_bytes(2) + chain_of_pointers(65_000))
        query = dns.message.make_query("www.example.test", "A", use_edns=0)
        for ask in (dns.query.udp, dns.query.tcp):
            assert "192.0.2.7" in ask(query, "127.0.0.1", port=port, timeout=10).answer[0].to_text()
        ours = dns.message.make_query(f"n.example.test.{ZONE}", "TXT")
        assert dns.query.tcp(ours, "127.0.0.1", port=port, timeout=10).flags & dns.flags.AA
        assert "Traceback" not in running.log.read_text()


def _send(connection: socket.socket, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):  # it may be closed before all is sent
        connection.sendall(data)


def test_account_has_a_delegation_of_its_own(
    proxy: StartProxy, start_ca: StartCa, fresh_name: Callable[[], str]
) -> None:
    """dns-account-01, for a wildcard, at the name of the account that is about to be created."""
    port, name = free_port(), fresh_name()
    ca = start_ca(port, zones=[f"_acme-challenge.{name}"])
    running = proxy(
        ca=ca,
        dns_port=port,
        acme_challenges=["dns-account-01"],
        acme_hide_challenges=False,
        acme_certificates=[f"*.{name}"],
        acme_domains=[],
    )
    eventually(lambda: is_trusted(running.https_port, f"www.{name}", ca.root()))
    asked = re.findall(r"dns query \(txt\) (\S+)", running.log.read_text().lower())
    assert asked
    assert all(re.fullmatch(rf"_[a-z2-7]{{16}}\._acme-challenge\.{name}", place) for place in asked)


def test_persistent_record_allows_orders_and_its_absence_is_logged(
    proxy: StartProxy, fresh_name: Callable[[], str]
) -> None:
    """dns-persist-01: without the record the CA validates nothing, and the log has the record to publish."""
    need("pebble", "unbound")
    name = fresh_name()
    with Unbound({}) as resolver, Pebble(resolver) as ca:
        running = proxy(
            ca=ca,
            acme_challenges=["dns-persist-01"],
            acme_certificates=[f"*.{name}"],
            acme_domains=[],
            acme_dns_resolvers=[resolver.address],
            acme_fail_backoff="1s",
        )
        eventually(lambda: "no DNS record allows the order" in running.log_text())
        assert ca.seen().validations == 0
        line = re.search(r"publish (_validation-persist\S+ TXT \".+; policy=wildcard\")", running.log_text())
        assert line is not None
        resolver.publish(line[1])
        eventually(lambda: is_trusted(running.https_port, f"www.{name}", ca.root()), timeout=20)
        assert ca.seen().certificates == 1


def test_provider_publishes(proxy: StartProxy, fresh_name: Callable[[], str]) -> None:
    """Through lexicon and a nameserver's API: several values at once, visible before the CA is asked, and removed."""
    need("pebble", "unbound", "pdns_server")
    zone = f"p.{fresh_name()}"
    with PowerDns(zone) as nameserver, Unbound({zone: [nameserver.port]}) as resolver, Pebble(resolver) as ca:
        running = proxy(
            ca=ca,
            start=False,
            acme_challenges=["dns-01"],
            acme_dns_provider="powerdns",
            acme_dns_resolvers=[resolver.address],
            acme_certificates=[f"a.{zone},*.a.{zone}"],
            acme_domains=[],
        )
        running.environment |= {
            "LEXICON_POWERDNS_PDNS_SERVER": nameserver.url,
            "LEXICON_POWERDNS_AUTH_TOKEN": nameserver.key,
        }
        running.start()
        eventually(lambda: is_trusted(running.https_port, f"www.a.{zone}", ca.root()))
        eventually(lambda: nameserver.texts(f"_acme-challenge.a.{zone}") == [])
        assert nameserver.key not in running.log.read_text()


def test_missing_dns_mode_is_logged(proxy: StartProxy) -> None:
    """Without a port for DNS only other nodes could answer, which is probably a mistake."""
    hint = "this proxy has no dns mode; add --mode dns@53"
    assert hint in proxy(acme_challenges=["dns-01"]).log.read_text()
    quiet = proxy(acme_challenges=["dns-01"], dns_port=free_port(), http_port=free_port())
    assert hint not in quiet.log.read_text()


def _answers(port: int, question: bytes) -> bool:
    try:
        return dns.query.udp(dns.message.from_wire(question), "127.0.0.1", port=port, timeout=1).rcode() == 0
    except dns.exception.Timeout:
        return False
