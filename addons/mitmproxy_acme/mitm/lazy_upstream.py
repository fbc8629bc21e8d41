"""Connects to the upstream only for a request, so that a dead upstream closes neither a challenge nor a handshake
(``acme_lazy``).

This module knows mitmproxy's reverse modes and when they connect; it must not know what is served there. It decides for
each connection: mitmproxy's ``connection_strategy=lazy`` would apply to all modes, and breaks those in which the
upstream speaks first, or in which the client's protocol (ALPN) follows the upstream's choice.
"""

from mitmproxy import connection, ctx
from mitmproxy.proxy import events, layer, mode_specs
from mitmproxy.proxy.layers import modes
from mitmproxy.proxy.layers.tls import TlsClienthelloHook

# The schemes in which mitmproxy reads requests, and connects when it has one.
_SCHEMES = frozenset({"http", "https", "http3", "dns"})


def connect_lazily(client: connection.Client) -> None:
    """Have the upstream of a client that has just connected wait for a request.

    Call it before another layer is put around mitmproxy's first. Does nothing in other modes, or where another addon
    has replaced mitmproxy's first layer.
    """
    mode = client.proxy_mode
    if not isinstance(mode, mode_specs.ReverseMode) or mode.scheme not in _SCHEMES:
        return
    handler = ctx.master.addons.get("proxyserver").connections[client.id]  # type: ignore[no-untyped-call]
    first = handler.layer
    if type(first) is modes.ReverseProxy:
        first.context.layers.remove(first)
        handler.layer = _LazyReverseProxy(first.context)


class _LazyReverseProxy(modes.ReverseProxy):
    """mitmproxy's, without the connection to the upstream: the layers above open it when they need it."""

    def finish_start(self) -> layer.CommandGenerator[str | None]:
        self._handle_event = self._pass_on  # as mitmproxy's own does
        yield from self.child_layer.handle_event(events.Start())
        return None

    def _pass_on(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.HookCompleted) and isinstance(event.command, TlsClienthelloHook):
            # After all addons: mitmproxy's own sets it where connection_strategy is eager, its default.
            event.command.data.establish_server_tls_first = False
        yield from self.child_layer.handle_event(event)
