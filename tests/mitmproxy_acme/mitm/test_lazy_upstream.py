"""When the upstream is connected to: mitmproxy's own layers, without sockets."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy import connection
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, context, events, layer, mode_specs
from mitmproxy.proxy.layers import modes
from mitmproxy.proxy.layers.tls import TlsClienthelloHook
from mitmproxy.test import taddons

from mitmproxy_acme.mitm import lazy_upstream


class Child(layer.Layer):
    """The layer above: keeps its events."""

    def __init__(self, held: context.Context) -> None:
        super().__init__(held)
        self.got = list[events.Event]()

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        self.got.append(event)
        yield commands.SendData(self.context.client, b"heard")


@pytest.fixture
def proxyserver() -> Iterator[Any]:
    made: Any = Proxyserver()  # type: ignore[no-untyped-call]  # mitmproxy's
    with taddons.context(made) as tctx:  # type: ignore[no-untyped-call]  # mitmproxy's own test tool
        made.options_of_the_test = tctx.options
        yield made


def connect(proxyserver: Any, mode: str, kind: type[Any] = modes.ReverseProxy) -> tuple[Any, context.Context]:
    """Return mitmproxy's handler of a client that has connected in a mode, and its context."""
    client = connection.Client(
        peername=("192.0.2.1", 1),
        sockname=("127.0.0.1", 443),
        proxy_mode=mode_specs.ProxyMode.parse(mode),
        state=ConnectionState.OPEN,
    )
    held = context.Context(client, proxyserver.options_of_the_test)
    handler = SimpleNamespace(layer=kind(held))
    proxyserver.connections[client.id] = handler
    lazy_upstream.connect_lazily(client)
    return handler, held


@pytest.mark.parametrize("scheme", ["http", "https", "http3", "dns"])
def test_upstream_waits_for_a_request(proxyserver: Any, scheme: str) -> None:
    """In the modes in which mitmproxy reads requests: the layer above begins at once, and none is opened."""
    handler, held = connect(proxyserver, f"reverse:{scheme}://up.test")
    assert held.layers == [handler.layer]
    said = list(handler.layer.handle_event(events.Start()))
    assert said == []
    assert held.server.address is not None
    assert held.server.address[0] == "up.test"
    assert [type(event) for event in handler.layer.child_layer.events] == [events.Start]


def test_tls_of_the_client_comes_first(proxyserver: Any) -> None:
    """Whatever mitmproxy's own addon said of it: the upstream need not be there for a handshake."""
    handler, held = connect(proxyserver, "reverse:https://up.test")
    list(handler.layer.handle_event(events.Start()))
    handler.layer.child_layer = child = Child(held)
    data: Any = SimpleNamespace(establish_server_tls_first=True, context=held)
    answered = events.HookCompleted(TlsClienthelloHook(data), None)
    other = events.DataReceived(held.client, b"data")
    for event in (answered, other):
        assert len(list(handler.layer.handle_event(event))) == 1
    assert data.establish_server_tls_first is False
    assert child.got == [answered, other]


@pytest.mark.parametrize("mode", ["reverse:tcp://up.test:5", "reverse:tls://up.test:5", "reverse:udp://up.test:5"])
def test_upstream_that_may_speak_first_is_connected_to_at_once(proxyserver: Any, mode: str) -> None:
    """mitmproxy's own layer stays."""
    handler, _ = connect(proxyserver, mode)
    assert type(handler.layer) is modes.ReverseProxy


def test_layer_of_another_addon_stays(proxyserver: Any) -> None:
    class Other(modes.ReverseProxy):
        """Of a script."""

    handler, held = connect(proxyserver, "reverse:http://up.test", Other)
    assert type(handler.layer) is Other
    assert held.layers == [handler.layer]


def test_other_modes_are_left_as_they_are(proxyserver: Any) -> None:
    handler, _ = connect(proxyserver, "regular", modes.HttpProxy)
    assert type(handler.layer) is modes.HttpProxy
