"""Traffic: mitmproxy's hooks for connections and flows, turned into calls.

This module knows mitmproxy's hooks; it must not decide anything about certificates. To mitmproxy all scripts are one
addon of its chain: what one of them raises keeps the event from all scripts behind it. So these hooks are not the
script's own: they have a place of their own in the chain, directly behind the scripts.
"""

from collections.abc import Callable

from mitmproxy import connection, ctx, dns, exceptions, http, tls
from mitmproxy.flow import Flow
from mitmproxy.proxy import mode_specs, server_hooks
from mitmproxy.proxy.layers import quic

from . import addon_chain
from .dns.message_guard import DnsGuard
from .dns.nameserver import is_plain
from .flow_marks import is_hidden
from .lazy_upstream import LazyUpstream
from .runtime import Runtime


class TrafficHooks:
    """The addon behind the scripts. mitmproxy calls its hooks on the event loop."""

    name = "acme_traffic"

    def __init__(self, service: Callable[[], Runtime | None], lazy: LazyUpstream) -> None:
        self._service = service
        self._lazy = lazy

    def enter(self) -> None:
        """Take the place behind the scripts."""
        addon_chain.put_behind(self, "scriptloader")

    def leave(self) -> None:
        """Leave the chain; nothing where it is not there."""
        addon_chain.take_out(self)

    def client_connected(self, client: connection.Client) -> None:
        if (service := self._service()) is None:
            return
        if service.manager.config.lazy:
            self._lazy.connected(client)
        service.handshakes.connected(client)
        mode = client.proxy_mode
        reads_dns = is_plain(mode) or (isinstance(mode, mode_specs.ReverseMode) and mode.scheme == "dns")
        if reads_dns and service.nameserver is not None:  # to the ``dns`` mode that is who comes before it is ours
            handler = ctx.master.addons.get("proxyserver").connections[client.id]  # type: ignore[no-untyped-call]
            handler.layer = DnsGuard(handler.layer.context, handler.layer)

    def server_connected(self, data: server_hooks.ServerConnectionHookData) -> None:
        service = self._service()
        if service is not None and service.barrier.refuses(data.server, data.client.proxy_mode):
            _abort(data)

    async def dns_request(self, flow: dns.DNSFlow) -> None:
        if (service := self._service()) is not None and service.nameserver is not None:
            await service.nameserver.respond(flow)
        _hide(flow)

    def dns_response(self, flow: dns.DNSFlow) -> None:
        _hide(flow)

    def tls_clienthello(self, data: tls.ClientHelloData) -> None:
        if service := self._service():
            service.handshakes.note(data)

    def tls_established_client(self, data: tls.TlsData) -> None:
        if service := self._service():
            service.handshakes.done(data.context.client)

    def client_disconnected(self, client: connection.Client) -> None:
        if service := self._service():
            service.handshakes.done(client)

    async def tls_start_client(self, data: tls.TlsData) -> None:
        if service := self._service():
            await service.handshakes.start_tls(data)

    async def quic_start_client(self, data: quic.QuicTlsData) -> None:
        if service := self._service():
            await service.handshakes.start_quic(data)

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Look at what is no challenge of ours: those never come here (``EarlyReply``)."""
        if (service := self._service()) is None:
            return
        service.responder.decline(flow, whole=False)
        if _is_http3_of_reverse_https(flow) and not flow.server_conn.connected:
            # It would otherwise need an upstream that speaks QUIC, and few do; reverse:http3 is for those.
            flow.server_conn.transport_protocol = "tcp"

    def request(self, flow: http.HTTPFlow) -> None:
        if service := self._service():
            service.responder.decline(flow, whole=True)


def _hide(flow: Flow) -> None:
    """Keep a hidden challenge from the addons behind this one: mitmproxy's flow list, dumper and writer are."""
    if is_hidden(flow):
        raise exceptions.AddonHalt


def _abort(data: server_hooks.ServerConnectionHookData) -> None:
    """Close a connection that has just been opened; what the client sends there is dropped.

    One of a replay has no handler, and is not closed: whoever replays flows is the operator.
    """
    handler = ctx.master.addons.get("proxyserver").connections.get(data.client.id)  # type: ignore[no-untyped-call]
    if handler is not None:
        handler.transports[data.server].writer.transport.abort()


def _is_http3_of_reverse_https(flow: http.HTTPFlow) -> bool:
    client, mode = flow.client_conn, flow.client_conn.proxy_mode
    return client.transport_protocol == "udp" and isinstance(mode, mode_specs.ReverseMode) and mode.scheme == "https"
