"""Limits how much a client may send before its ClientHello is complete.

This module knows mitmproxy's layers; it must not know what a ClientHello says. With each piece that arrives mitmproxy
parses everything from the start again, and its QUIC layer decrypts it again: a long ClientHello in small pieces keeps
the event loop for minutes (5 MB: 12 s).
"""

from mitmproxy import connection
from mitmproxy.proxy import events, layer, layers, mode_specs
from mitmproxy.proxy.layers import modes
from mitmproxy.proxy.server import ConnectionHandler

from . import rejection
from .rejection import Alert

# Browsers send up to 2 KB, with a post-quantum key share; a session ticket may add some more.
_MAX_SIZE = 16_384
_TLS_RECORD = b"\x16\x03"  # what the record of a ClientHello begins with
_LAYERS_BEFORE = (modes.ReverseProxy, layers.ServerTLSLayer, layers.ServerQuicLayer)
_QUIC_SCHEMES = frozenset(("https", "http3", "quic"))


class ClientHelloLimit(layer.Layer):
    """Wraps mitmproxy's layers in reverse mode until they have a ClientHello, or until it is clear that none will come.

    A client that sends more before that gets an alert, and is disconnected.
    """

    def __init__(self, handler: ConnectionHandler, wrapped: layer.Layer) -> None:
        super().__init__(wrapped.context)
        self.context.layers.remove(self)  # mitmproxy decides by the layers that it finds there
        self._handler, self._wrapped = handler, wrapped
        self._received = 0

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.DataReceived) and event.connection is self.context.client:
            if self._is_over(event.data):
                self._handler.layer = self._wrapped
            else:
                self._received += len(event.data)
            if self._received > _MAX_SIZE:
                alert = rejection.alert_record(Alert.ILLEGAL_PARAMETER)
                self._handler.layer = rejection.FinalReplyLayer(self.context, alert)
                yield from self._handler.layer.handle_event(event)
                return
        yield from self._wrapped.handle_event(event)

    def _is_over(self, data: bytes) -> bool:
        """Say whether mitmproxy no longer waits for a ClientHello, or never did."""
        is_tcp = self.context.client.transport_protocol == "tcp"
        return (not self._received and is_tcp and not data.startswith(_TLS_RECORD)) or _has_hello(self._wrapped)


def is_quic(client: connection.Client) -> bool:
    """Say whether a client speaks QUIC: in these modes nothing else is understood over UDP."""
    mode = client.proxy_mode
    is_udp = client.transport_protocol == "udp"
    return is_udp and isinstance(mode, mode_specs.ReverseMode) and mode.scheme in _QUIC_SCHEMES


def _has_hello(first: layer.Layer) -> bool:
    for current in reversed(first.context.layers):
        if isinstance(current, layers.ClientTLSLayer):
            return current.client_hello_parsed
        if isinstance(current, layers.ClientQuicLayer):
            return current.tls is not None or current._paused is not None  # with a hook that has the ClientHello
        if not isinstance(current, _LAYERS_BEFORE):
            return True
    return False
