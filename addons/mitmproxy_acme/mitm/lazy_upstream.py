"""Lazy: the upstream is connected to when there is a request for it, so that a dead one closes neither a challenge nor
a handshake (``acme_lazy``).

This module knows mitmproxy's reverse modes and when they connect; it must not know what is served there. It decides for
each connection: ``connection_strategy=lazy`` would hold for all modes, and breaks those in which the upstream speaks
first, or in which its choice of a protocol (ALPN) has to be the client's.
"""

from mitmproxy import connection, ctx, tls
from mitmproxy.proxy import events, layer, mode_specs
from mitmproxy.proxy.layers import modes

from . import addon_chain

# The schemes in which mitmproxy reads requests, and connects when it has one.
_SAFE = frozenset({"http", "https", "http3", "dns"})


class LazyUpstream:
    """The last addon of mitmproxy's chain: what it says of a ClientHello is what holds.

    Who has put it there tells it of each client that connects.
    """

    name = "acme_connecting"

    def enter(self) -> None:
        """Be lazy from the next connection on."""
        addon_chain.put_last(self)

    def leave(self) -> None:
        """Leave it to mitmproxy's options from the next connection on."""
        addon_chain.take_out(self)

    def connected(self, client: connection.Client) -> None:
        """Take the lazy way with a client that has just connected, before another layer is put around its first."""
        if not _is_safe(client.proxy_mode):
            return
        handler = ctx.master.addons.get("proxyserver").connections[client.id]  # type: ignore[no-untyped-call]
        top = handler.layer
        if type(top) is modes.ReverseProxy:  # else another addon has set its own
            top.context.layers.remove(top)
            handler.layer = _LazyReverseProxy(top.context)

    def tls_clienthello(self, data: tls.ClientHelloData) -> None:
        if _is_safe(data.context.client.proxy_mode):
            data.establish_server_tls_first = False


class _LazyReverseProxy(modes.ReverseProxy):
    """mitmproxy's, but for the connection to the upstream, which the layers above it open when they need it."""

    def finish_start(self) -> layer.CommandGenerator[str | None]:
        self._handle_event = self.child_layer.handle_event  # mitmproxy's own way
        yield from self.child_layer.handle_event(events.Start())
        return None


def _is_safe(mode: mode_specs.ProxyMode) -> bool:
    return isinstance(mode, mode_specs.ReverseMode) and mode.scheme in _SAFE
