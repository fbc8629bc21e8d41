"""Which clients must validate their address, and what validates it: QUIC's packets, without sockets."""

from typing import Any

import pytest
from aioquic.h3.connection import H3_ALPN
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from mitmproxy import connection
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, context, events, mode_specs
from mitmproxy.proxy.layers import quic
from mitmproxy.test import taddons

from mitmproxy_acme.mitm.tls import quic_retry
from mitmproxy_acme.mitm.tls.quic_retry import QuicRetry

SERVER = ("127.0.0.1", 443)


class Handler:
    """The part of mitmproxy's handler of a client that is used."""

    def __init__(self, client: connection.Client, options: Any) -> None:
        self.layer: Any = quic.ClientQuicLayer(context.Context(client, options), time=lambda: 0.0)
        self.transports = {client: None}
        self.closed = False

    def close_connection(self, _: connection.Client) -> None:
        self.closed = True

    def gets(self, datagram: bytes) -> list[bytes]:
        """Return what is sent when this arrives."""
        said = self.layer.handle_event(events.DataReceived(self.layer.context.client, datagram))
        return [command.data for command in said if isinstance(command, commands.SendData)]


class Edge:
    """A QuicRetry, in a mitmproxy whose clients are made here."""

    def __init__(self) -> None:
        self.proxyserver = Proxyserver()  # type: ignore[no-untyped-call]
        with taddons.context(self.proxyserver) as tctx:  # type: ignore[no-untyped-call]  # mitmproxy's own test tool
            self.options = tctx.options
        self.addresses = QuicRetry()

    def client(self, port: int = 1, mode: str = "reverse:https://up.test", protocol: Any = "udp") -> Handler:
        client = connection.Client(
            peername=("192.0.2.1", port),
            sockname=SERVER,
            transport_protocol=protocol,
            proxy_mode=mode_specs.ProxyMode.parse(mode),
            state=ConnectionState.OPEN,
        )
        handler: Any = Handler(client, self.options)
        self.proxyserver.connections[client.id] = handler
        self.addresses.connected(client)
        return handler  # type: ignore[no-any-return]  # as above

    def says(self, handler: Handler, datagram: bytes) -> context.Context:
        """Have mitmproxy's layer keep an Initial, and read its token."""
        handler.layer.handshake_datagram_buf.append(datagram)
        held: context.Context = handler.layer.context
        self.addresses.read_token(held)
        return held


@pytest.fixture
def edge() -> Edge:
    return Edge()


def visitor() -> QuicConnection:
    client = QuicConnection(configuration=QuicConfiguration(alpn_protocols=H3_ALPN, server_name="a.example.test"))
    client.connect(SERVER, now=0.0)
    return client


def sent(client: QuicConnection) -> bytes:
    return client.datagrams_to_send(now=0.0)[0][0]


def retried(edge: Edge, handler: Handler, client: QuicConnection) -> bytes:
    """Return what a client sends after it got a Retry."""
    held = edge.says(handler, sent(client))
    assert not edge.addresses.is_validated(held)
    start = quic.QuicTlsData(held.client, held)
    edge.addresses.retry(start)
    (packet,) = handler.gets(b"")
    client.receive_datagram(packet, SERVER, now=0.1)
    return sent(client)


def test_client_that_answers_a_retry_is_validated(edge: Edge) -> None:
    """From the same address, through the same connection of mitmproxy or another."""
    again = retried(edge, edge.client(), visitor())
    held = edge.says(edge.client(), again)
    assert edge.addresses.is_validated(held)


def test_token_is_worth_nothing_elsewhere(edge: Edge) -> None:
    """From another port, or to another process; a client that sends such a token is closed."""
    again = retried(edge, edge.client(), visitor())
    other, elsewhere = edge.client(port=2), QuicRetry()
    assert not edge.addresses.is_validated(edge.says(other, again))
    same = edge.says(edge.client(), again)
    elsewhere.read_token(same)
    assert (edge.addresses.is_validated(same), elsewhere.is_validated(same)) == (True, False)
    start = quic.QuicTlsData(other.layer.context.client, other.layer.context)
    edge.addresses.retry(start)
    said = list(other.layer.handle_event(events.DataReceived(start.conn, b"")))
    assert [type(command) for command in said] == [commands.SendData, commands.CloseConnection]


def test_many_clients_get_a_retry_before_a_hello_is_read(edge: Edge) -> None:
    """From the 65th unfinished handshake on; datagrams other than an Initial get no answer."""
    before = [edge.client() for _ in range(64)]
    late = edge.client()
    assert isinstance(before[-1].layer, quic.ClientQuicLayer)
    assert not isinstance(late.layer, quic.ClientQuicLayer)
    assert late.gets(b"") == late.gets(b"\xc0" + bytes(1_300)) == late.gets(sent(visitor())[:600]) == []
    client = visitor()
    (packet,) = late.gets(sent(client))
    assert len(packet) < 400
    client.receive_datagram(packet, SERVER, now=0.1)
    assert edge.addresses._decrypt(client._peer_token) is not None


def test_unfinished_handshakes_have_a_limit(edge: Edge) -> None:
    """Beyond 512 the oldest is closed; finished ones, TCP, and modes without QUIC do not count."""
    first = edge.client()
    for protocol, mode in [("tcp", "reverse:https://up.test"), ("udp", "reverse:udp://up.test:1"), ("udp", "dns")]:
        edge.client(mode=mode, protocol=protocol)
    assert len(edge.addresses) == 1
    edge.addresses.done(first.layer.context.client)
    made = [edge.client() for _ in range(600)]
    assert len(edge.addresses) == 512
    assert [handler.closed for handler in made] == [True] * 88 + [False] * 512
    assert not first.closed


@pytest.mark.parametrize("size", [0, 1, 20, 1_200, 65_000])
def test_garbage_is_no_first_datagram(size: int) -> None:
    assert quic_retry._initial(b"\xc3" * size) is None
