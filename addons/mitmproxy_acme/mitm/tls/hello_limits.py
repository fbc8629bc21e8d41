"""Bounds how much a client may send before its ClientHello is complete.

This module knows mitmproxy's layers; it must not know what a ClientHello says. With each piece mitmproxy reads all that
came before once more, and its QUIC layer decrypts it once more: a long ClientHello in small pieces keeps the loop for
minutes (5 MB: 12 s).
"""

from mitmproxy import connection
from mitmproxy.proxy import events, layer, layers, mode_specs
from mitmproxy.proxy.layers import modes
from mitmproxy.proxy.server import ConnectionHandler

from . import rejection
from .rejection import Alert

# Browsers send up to 2 KB, with a post-quantum key share; a session ticket may add some more.
_MOST = 16_384
_TLS = b"\x16\x03"  # what the record of a ClientHello begins with
_BEFORE = (modes.ReverseProxy, layers.ServerTLSLayer, layers.ServerQuicLayer)
_QUIC_SCHEMES = frozenset(("https", "http3", "quic"))


class BoundedHello(layer.Layer):
    """Stands before mitmproxy's layers in reverse mode until they have a ClientHello, or know that none will come."""

    def __init__(self, handler: ConnectionHandler, inner: layer.Layer) -> None:
        super().__init__(inner.context)
        self.context.layers.remove(self)  # mitmproxy decides by what it finds there
        self._handler, self._inner = handler, inner
        self._size = 0

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.DataReceived) and event.connection is self.context.client:
            if self._is_over(event.data):
                self._handler.layer = self._inner
            else:
                self._size += len(event.data)
            if self._size > _MOST:
                rejection.end(self._handler, self.context, rejection.alert_record(Alert.ILLEGAL_PARAMETER))
                yield from self._handler.layer.handle_event(event)
                return
        yield from self._inner.handle_event(event)

    def _is_over(self, data: bytes) -> bool:
        """Say whether mitmproxy waits for no ClientHello any more, or never did."""
        tcp = self.context.client.transport_protocol == "tcp"
        return (not self._size and tcp and not data.startswith(_TLS)) or _has_hello(self._inner)


def is_quic(client: connection.Client) -> bool:
    """Say whether a client speaks QUIC, or nothing that its mode knows."""
    mode = client.proxy_mode
    udp = client.transport_protocol == "udp"
    return udp and isinstance(mode, mode_specs.ReverseMode) and mode.scheme in _QUIC_SCHEMES


def _has_hello(top: layer.Layer) -> bool:
    for held in reversed(top.context.layers):
        if isinstance(held, layers.ClientTLSLayer):
            return held.client_hello_parsed
        if isinstance(held, layers.ClientQuicLayer):
            return held.tls is not None or held._paused is not None  # with a hook that has the ClientHello
        if not isinstance(held, _BEFORE):
            return True
    return False
