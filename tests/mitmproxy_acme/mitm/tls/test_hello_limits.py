"""How much of a ClientHello is read: mitmproxy's own layers, without sockets."""

import struct
from typing import Any

import pytest
from mitmproxy import connection
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, context, events, layers, mode_specs
from mitmproxy.proxy.layers import modes
from mitmproxy.test import taddons
from OpenSSL import SSL

from mitmproxy_acme.mitm.tls.hello_limits import ClientHelloLimit
from tests.costs import cpu_seconds


class Handler:
    """mitmproxy's handler of one client in reverse mode, whose next layer is the one for TLS."""

    def __init__(self) -> None:
        with taddons.context() as tctx:  # type: ignore[no-untyped-call]  # mitmproxy's own test tool
            self.client = connection.Client(
                peername=("192.0.2.1", 1),
                sockname=("127.0.0.1", 443),
                proxy_mode=mode_specs.ProxyMode.parse("reverse:http://up.test"),
                state=ConnectionState.OPEN,
            )
            held = context.Context(self.client, tctx.options)
        modes.ReverseProxy(held)
        self.inner = layers.ClientTLSLayer(held)
        list(self.inner.handle_event(events.Start()))
        itself: Any = self
        self.layer: Any = ClientHelloLimit(itself, self.inner)

    def gets(self, data: bytes) -> list[commands.Command]:
        return list(self.layer.handle_event(events.DataReceived(self.client, data)))


def record(content: bytes) -> bytes:
    return b"\x16\x03\x01" + struct.pack("!H", len(content)) + content


ENDLESS = record(b"\x01\xff\xff\xff\x03\x03")


@pytest.mark.parametrize("piece", [record(b"a" * 100), record(b"a" * 16_000), b"a" * 65_535])
def test_endless_hello_ends(piece: bytes) -> None:
    """Beyond 16 KB the client gets an alert, and nothing more is kept or read."""
    handler = Handler()
    said = handler.gets(ENDLESS)
    while not said:
        said = handler.gets(piece)
    assert [type(command) for command in said] == [commands.SendData, commands.CloseConnection]
    assert getattr(said[0], "data", b"") == bytes((21, 3, 3, 0, 2, 2, 47))
    assert len(handler.inner.recv_buffer) <= 16_384
    assert handler.gets(piece) == []


def test_long_hello_costs_little() -> None:
    """5 MB in records of 100 bytes took 12 s of the loop."""
    piece = record(b"a" * 100) * 150

    def attack() -> None:
        handler = Handler()
        handler.gets(ENDLESS)
        for _ in range(5_000_000 // len(piece)):
            handler.gets(piece)

    assert cpu_seconds(attack, times=2) < 0.2


@pytest.mark.parametrize("size", [1, 100, 16_000])
def test_hello_in_pieces_is_read(size: int) -> None:
    """What follows the ClientHello does not count, at any length."""
    client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD))
    client.set_tlsext_host_name(b"a.example.test")
    client.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    handler, hello = Handler(), client.bio_read(65_535)
    for at in range(0, len(hello), size):
        said = handler.gets(hello[at : at + size])
    assert [type(command).__name__ for command in said] == ["TlsClienthelloHook"]
    for _ in range(10):
        handler.gets(b"a" * 65_535)
    assert handler.layer is handler.inner


@pytest.mark.parametrize(
    ("above", "is_over"),
    [([], False), ([layers.ServerTLSLayer], False), ([layers.ServerQuicLayer], False), ([layers.TCPLayer], True)],
)
def test_hello_is_waited_for_below_the_layers_that_come_before_it(above: list[Any], is_over: bool) -> None:
    """Those of the upstream are there already; any other means that mitmproxy knows what the client speaks."""
    handler = Handler()
    held = handler.inner.context
    held.layers.remove(handler.inner)
    for layer in above:
        layer(held)
    handler.gets(ENDLESS)
    assert (handler.layer is handler.inner) is is_over


@pytest.mark.parametrize("size", [16_384, 16_385])
def test_bound_is_the_longest_hello(size: int) -> None:
    """So many bytes are read, and not one more."""
    handler = Handler()
    said = handler.gets(ENDLESS + record(b"a" * (size - len(ENDLESS) - len(record(b"")))))
    assert (said != []) is (size > 16_384)


@pytest.mark.parametrize("data", [b"POST / HTTP/1.1\r\n\r\n" + b"a" * 60_000, b"\x00" * 65_535, b"a"])
def test_other_protocols_are_left_alone(data: bytes) -> None:
    """Their first piece shows that no ClientHello will come."""
    handler = Handler()
    handler.gets(data)
    assert handler.layer is handler.inner
