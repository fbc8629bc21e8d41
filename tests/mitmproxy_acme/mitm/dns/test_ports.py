"""The sockets of the ``dns`` mode: real ones, of a real mitmproxy server."""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import mitmproxy_rs
import pytest
from mitmproxy.addons.block import Block
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.proxy import commands, layers, mode_servers, mode_specs
from mitmproxy.test import taddons

from mitmproxy_acme.core.instrumentation import Instrumentation
from mitmproxy_acme.core.proof import Proof
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.mitm.dns import flood_limits
from mitmproxy_acme.mitm.dns import ports as dns_ports
from mitmproxy_acme.mitm.dns.flows import DnsClient, DnsFlows
from mitmproxy_acme.mitm.dns.nameserver import Answer, Nameserver
from mitmproxy_acme.mitm.dns.ports import DnsPorts, allows
from tests.mitmproxy_acme.conftest import MakeManager
from tests.servers.base import free_port

ZONE = "acme.example.test"
OPTIONS = {"acme_challenges": ("dns-01",), "acme_dns_zone": ZONE, "acme_dns_nameservers": ("ns.example.test",)}
MODE = mode_specs.ProxyMode.parse("dns")
PLACE = "_acme-challenge.a.example.test"
FOREIGN = dns.message.make_query("www.elsewhere.test", "A", id=7).to_wire()


@dataclass
class ReceivedHooks:
    """What mitmproxy's addons receive."""

    hooks: list[commands.StartHook] = field(default_factory=list)

    async def __call__(self, hook: commands.StartHook) -> None:
        self.hooks.append(hook)


@dataclass
class Serving:
    """A port of the ``dns`` mode that we have taken over."""

    ports: DnsPorts
    instance: mode_servers.DnsInstance
    port: int
    received: ReceivedHooks

    async def ask(self, name: str, *, udp: bool = True) -> dns.message.Message:
        ask = dns.asyncquery.udp if udp else dns.asyncquery.tcp
        return await ask(dns.message.make_query(name, "TXT"), "127.0.0.1", port=self.port, timeout=10)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


@pytest.fixture
def mitmproxy_options() -> Iterator[Any]:
    with taddons.context(Proxyserver(), Block()) as tctx:  # type: ignore[no-untyped-call]  # mitmproxy's own test tool
        yield tctx.options


@pytest.fixture
async def manager(make_manager: MakeManager) -> Manager:
    return make_manager(**OPTIONS)


@pytest.fixture
async def serving(manager: Manager, mitmproxy_options: Any) -> AsyncIterator[Serving]:
    port, received = free_port(), ReceivedHooks()
    instance = mode_servers.DnsInstance(mode_specs.DnsMode.parse(f"dns@127.0.0.1:{port}"), Proxyserver())  # type: ignore[no-untyped-call]
    await instance.start()
    ports = DnsPorts(lambda _: True, DnsFlows(received))
    ports.use(Nameserver(manager, Instrumentation()))
    await ports.serve([instance])
    yield Serving(ports, instance, port, received)
    await instance.stop()


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2) + message


async def test_ports_are_taken_from_mitmproxy_and_given_back(serving: Serving, manager: Manager) -> None:
    """Over UDP and TCP, at the same addresses; a second nameserver, after a changed option, needs no other socket."""
    addresses = serving.instance.listen_addrs
    assert set(addresses) == {("127.0.0.1", serving.port)}
    before = list(serving.instance._servers)
    serving.ports.use(Nameserver(manager, Instrumentation()))
    await serving.ports.serve([serving.instance])
    assert serving.instance._servers == before
    for udp in (True, False):
        assert (await serving.ask("www.elsewhere.test", udp=udp)).rcode() == dns.rcode.REFUSED
        assert (await serving.ask(f"a.example.test.{ZONE}", udp=udp)).flags & dns.flags.AA
    serving.ports.use(None)
    await serving.ports.serve([serving.instance])
    assert any(isinstance(server, mitmproxy_rs.udp.UdpServer) for server in serving.instance._servers)
    assert serving.instance.listen_addrs == addresses


async def test_udp_is_ours_from_the_start(
    manager: Manager, mitmproxy_options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A query that comes as soon as the port is open is answered; what ``run`` has replaced is respected."""
    ports, port = DnsPorts(lambda _: True, DnsFlows(ReceivedHooks())), free_port()
    ports.install()
    instance = mode_servers.DnsInstance(mode_specs.DnsMode.parse(f"dns@127.0.0.1:{port}"), Proxyserver())  # type: ignore[no-untyped-call]
    try:
        ports.use(Nameserver(manager, Instrumentation()))
        await instance.start()
        reply = await dns.asyncquery.udp(dns.message.from_wire(FOREIGN), "127.0.0.1", port=port, timeout=10)
        assert reply.rcode() == dns.rcode.REFUSED
        await instance.stop()
    finally:
        ports.uninstall()
    ports.uninstall()
    assert mode_servers.DnsInstance.start_udp_based_server is mode_servers.AsyncioServerInstance.start_udp_based_server
    monkeypatch.setattr(mode_servers.AsyncioServerInstance, "start_udp_based_server", Waiting.answer)
    ports.install()
    assert "start_udp_based_server" not in vars(mode_servers.DnsInstance)


async def test_script_that_is_loaded_again_goes_on_with_the_sockets(serving: Serving, manager: Manager) -> None:
    """The old addon has no nameserver any more by then."""
    serving.ports.use(None)
    ports = DnsPorts(lambda _: True, DnsFlows(serving.received))
    ports.use(Nameserver(manager, Instrumentation()))
    await ports.serve([serving.instance])
    for udp in (True, False):
        assert (await serving.ask(f"a.example.test.{ZONE}", udp=udp)).flags & dns.flags.AA


async def test_other_servers_are_left_alone(serving: Serving) -> None:
    """Those of other modes, and the UDP port that another process of ``run`` has."""

    class Nothing:
        sockets = ()

        def close(self) -> None:
            pass

    nothing: Any = Nothing()
    serving.instance._servers.append(nothing)
    await serving.ports.serve([serving.instance, object()])
    assert serving.instance._servers[-1] is nothing
    serving.instance._servers.remove(nothing)


async def test_port_that_cannot_be_taken_over_is_logged(
    serving: Serving, manager: Manager, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One error, in one sentence; TCP is served all the same."""

    async def refuse(*_: object) -> None:
        raise OSError("in use")

    serving.ports.use(None)
    await serving.ports.serve([serving.instance])
    monkeypatch.setattr(dns_ports, "_bind", refuse)
    serving.ports.use(Nameserver(manager, Instrumentation()))
    await serving.ports.serve([serving.instance])
    assert (await serving.ask("www.elsewhere.test", udp=False)).rcode() == dns.rcode.REFUSED
    assert f"UDP port {serving.port} of 127.0.0.1 cannot be taken over from mitmproxy: in use" in caplog.text


async def test_complete_message_over_tcp_is_answered_at_once(serving: Serving) -> None:
    """One after the other, on one connection, in order (RFC 1035 section 4.2.2)."""
    reader, writer = await serving.connect()
    for number in range(3):
        writer.write(framed(dns.message.make_query("elsewhere.test", "A", id=number).to_wire()))
        reply = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
        assert int.from_bytes(reply[:2]) == number
    writer.close()


@pytest.mark.parametrize("size", [1, 2, 3, 17, 200])
async def test_messages_over_tcp_may_come_in_any_pieces(serving: Serving, size: int) -> None:
    """Several at once, or byte by byte: one reply to each, in order."""
    messages = [dns.message.make_query(f"n{number}.elsewhere.test", "A", id=number).to_wire() for number in range(5)]
    reader, writer = await serving.connect()
    for piece in itertools.batched(b"".join(map(framed, messages)), size):
        writer.write(bytes(piece))
        await writer.drain()
        await asyncio.sleep(0)
    writer.write_eof()
    replies = await reader.read()
    assert replies == b"".join(framed(_refusal(message)) for message in messages)
    writer.close()


def _refusal(message: bytes) -> bytes:
    return message[:2] + bytes.fromhex("8105") + message[4:]


@pytest.mark.parametrize("length", [0, 11, 1_025, 65_535])
async def test_length_that_no_query_has_ends_the_connection_at_once(serving: Serving, length: int) -> None:
    """By its two bytes alone: nothing more is awaited or kept."""
    reader, writer = await serving.connect()
    writer.write(length.to_bytes(2))
    assert await reader.read() == b""
    writer.close()


async def test_what_may_not_be_replied_to_ends_the_connection(serving: Serving) -> None:
    reader, writer = await serving.connect()
    writer.write(framed(b"\0\7\x81" + FOREIGN[3:]))
    assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize("said", [b"", b"\0", b"\0\x20abc"])
async def test_idle_connection_is_closed(serving: Serving, monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    """RFC 7766 section 6.2.3: also in the middle of a message."""
    monkeypatch.setattr(dns_ports, "_TIMEOUT", 0.05)
    reader, writer = await serving.connect()
    writer.write(said)
    assert await reader.read() == b""
    writer.close()


async def test_dripping_bytes_buy_no_time(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """The complete message must arrive in time, not only its next byte."""
    monkeypatch.setattr(dns_ports, "_TIMEOUT", 0.1)
    reader, writer = await serving.connect()
    end = asyncio.ensure_future(reader.read())
    writer.write((1_000).to_bytes(2))
    dripped = 0
    while not end.done() and dripped < 1_000:
        writer.write(b"x")
        dripped += 1
        await asyncio.wait([end], timeout=0.01)
    assert dripped < 1_000
    await asyncio.wait([end])  # closed, or reset for the bytes that were not read
    assert end.exception() or end.result() == b""
    writer.close()


async def test_longest_idle_connection_makes_room(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of connections has a limit, and a client that sent a query just now keeps its connection."""
    monkeypatch.setattr(dns_ports, "_MAX_CONNECTIONS", 3)
    connections = [await serving.connect() for _ in range(3)]
    for reader, writer in (*connections, connections[0]):  # all are accepted; the second has been silent for longest
        writer.write(framed(FOREIGN))
        assert await reader.readexactly(2 + len(FOREIGN)) == framed(_refusal(FOREIGN))
    newest = await serving.connect()
    assert await connections[1][0].read() == b""
    for reader, writer in (connections[0], connections[2], newest):
        writer.write(framed(FOREIGN))
        assert await reader.readexactly(2 + len(FOREIGN)) == framed(_refusal(FOREIGN))
    for _, writer in (*connections, newest):
        writer.close()


class Transport:
    """What is sent over UDP, and how many bytes wait for the kernel."""

    def __init__(self, waiting: int = 0) -> None:
        self.sent: list[bytes] = []
        self.waiting = waiting

    def sendto(self, reply: bytes, _address: object) -> None:
        self.sent.append(reply)

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def is_closing(self) -> bool:
        return False


def client_at(number: int = 1) -> DnsClient:
    return DnsClient((f"192.0.2.{number % 250}", 1_024 + number), ("127.0.0.1", 53), "udp", MODE)


class Waiting:
    """A nameserver whose storage is slow."""

    def __init__(self) -> None:
        self.asked = 0
        self.go_on = asyncio.Event()

    async def answer(self, message: bytes, *, udp: bool) -> Answer:
        self.asked += 1
        await self.go_on.wait()
        return Answer(_refusal(message))


def ports_with(nameserver: Any, received: ReceivedHooks | None = None) -> DnsPorts:
    ports = DnsPorts(lambda _: True, DnsFlows(received or ReceivedHooks()))
    ports.use(nameserver)
    return ports


async def settle(ports: DnsPorts) -> None:
    while ports._answering:
        await asyncio.wait(list(ports._answering))


async def test_more_queries_than_can_wait_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """And answered again as soon as others are done; while the kernel accepts no reply, none is made."""
    monkeypatch.setattr(dns_ports, "_MAX_WAITING", 10)
    slow = Waiting()
    ports, transport = ports_with(slow), Transport()
    for number in range(500):
        ports.datagram(FOREIGN, client_at(number), transport)
    slow.go_on.set()
    await settle(ports)
    assert (slow.asked, len(transport.sent)) == (10, 10)
    ports.datagram(FOREIGN, client_at(), transport)
    ports.datagram(FOREIGN, client_at(), Transport(waiting=10_000_000))
    await settle(ports)
    assert (slow.asked, len(transport.sent)) == (11, 11)


async def test_replies_longer_than_their_query_have_a_rate_limit(manager: Manager) -> None:
    """Over UDP the sender may be forged. Beyond the limit replies are as long as the query, and refer to TCP."""
    ports, transport = ports_with(Nameserver(manager, Instrumentation())), Transport()
    ports._rate_limit = flood_limits.ResponseRateLimit(lambda: 0.0)
    query = dns.message.make_query(ZONE, "SOA", use_edns=0).to_wire()
    for number in range(2_000):
        ports.datagram(query, client_at(number), transport)
        await settle(ports)
    longer = [reply for reply in transport.sent if len(reply) > len(query)]
    assert len(transport.sent) == 2_000
    assert len(longer) == 400  # of one network at once
    truncated = dns.message.from_wire(transport.sent[-1], ignore_trailing=False)
    assert truncated.flags & dns.flags.TC
    assert truncated.answer == []
    elsewhere = DnsClient(("198.51.100.1", 53), ("127.0.0.1", 53), "udp", MODE)
    ports.datagram(query, elsewhere, transport)
    await settle(ports)
    assert len(transport.sent[-1]) > len(query)


async def ask_for_much(manager: Manager) -> list[str]:
    """Send queries as a stranger and as a CA, and return the names that mitmproxy lists."""
    received = ReceivedHooks()
    ports, transport = ports_with(Nameserver(manager, Instrumentation()), received), Transport()
    manager.store.put_proof(Proof("dns-01", PLACE, "1"))
    for number in range(200):
        for name, type in (("www.elsewhere.test", "A"), (f"n{number}.example.test.{ZONE}", "TXT"), (ZONE, "SOA")):
            ports.datagram(dns.message.make_query(name, type).to_wire(), client_at(number), transport)
    ports.datagram(b"\xff" * 100, client_at(), transport)
    ports.datagram(dns.message.make_query(PLACE, "TXT").to_wire(), client_at(), transport)
    await settle(ports)
    for _ in range(3):
        await asyncio.sleep(0)
    assert {hook.name for hook in received.hooks} == {"dns_request", "dns_response"}
    flows = [hook.flow for hook in received.hooks if isinstance(hook, layers.dns.DnsRequestHook)]
    return [flow.request.questions[0].name for flow in flows]


async def test_refusals_make_no_flow_and_strangers_queries_make_few(make_manager: MakeManager) -> None:
    """A CA's queries are listed even in a flood of unknown names."""
    listed = await ask_for_much(make_manager(**OPTIONS, acme_hide_challenges=False))
    assert PLACE in listed
    assert 0 < len(listed) <= 30
    assert all("example.test" in name for name in listed)


async def test_hidden_challenges_make_no_flow(make_manager: MakeManager) -> None:
    """Other addons could see it."""
    listed = await ask_for_much(make_manager(**OPTIONS, acme_hide_challenges=True))
    assert PLACE not in listed
    assert listed


async def test_flood_is_one_line_with_a_count(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """For any number of messages; fewer than a flood make no line."""
    caplog.set_level(logging.DEBUG, "mitmproxy_acme")
    monkeypatch.setattr(flood_limits, "_LOG_EVERY", 0.0)
    slow = Waiting()
    slow.go_on.set()
    ports = ports_with(slow)
    ports.datagram(FOREIGN, client_at(), Transport())
    await asyncio.sleep(0.01)
    assert caplog.messages == []
    for number in range(5_000):
        ports.datagram(FOREIGN, client_at(number), Transport(waiting=10_000_000))
    await asyncio.sleep(0.01)
    (line,) = caplog.messages
    assert line.startswith("DNS: 5000 messages within a minute; 5000 were dropped")


@pytest.mark.parametrize(
    ("address", "blocked_by"),
    [
        ("127.0.0.1", ()),
        ("192.168.1.1", ("block_private",)),
        ("fe80::1%eth0", ("block_private",)),
        ("8.8.8.8", ("block_global",)),
        ("2a00:1450:4001::1", ("block_global",)),
    ],
)
def test_mitmproxys_options_that_block_clients_apply(
    mitmproxy_options: Any, address: str, blocked_by: tuple[str, ...]
) -> None:
    """mitmproxy's own addon does not see these clients."""
    for private, public in itertools.product((False, True), repeat=2):
        mitmproxy_options.update(block_private=private, block_global=public)
        blocked = ("block_private" in blocked_by and private) or ("block_global" in blocked_by and public)
        assert allows(address, mitmproxy_options) == (not blocked)


async def test_client_that_is_blocked_gets_nothing() -> None:
    ports, transport, slow = DnsPorts(lambda _: False, DnsFlows(ReceivedHooks())), Transport(), Waiting()
    nameserver: Any = slow
    ports.use(nameserver)
    ports.datagram(FOREIGN, client_at(), transport)
    assert (slow.asked, transport.sent) == (0, [])
