"""mitmproxy's hooks for connections and flows: each hands its event to the part of the runtime that decides.

This module knows mitmproxy's hooks; it must not decide anything about certificates. To mitmproxy all scripts together
are one addon of its chain: an exception in one of them keeps the event from all scripts behind it. So these hooks are
an addon of their own in the chain, directly behind the scripts.
"""

from mitmproxy import connection, ctx, dns, exceptions, http, tls
from mitmproxy.flow import Flow
from mitmproxy.proxy import mode_specs, server_hooks
from mitmproxy.proxy.layers import quic

from . import addon_chain, lazy_upstream
from .dns.message_guard import DnsGuard
from .dns.nameserver import is_plain
from .flow_marks import is_hidden
from .http.routed_stream import prepare_tls
from .runtime import Runtime


class TrafficHooks:
    """The addon behind the scripts. mitmproxy calls its hooks on the event loop."""

    name = "acme_traffic"

    def __init__(self) -> None:
        # None while no name may have a certificate: mitmproxy may still be walking along the chain of before.
        self.runtime: Runtime | None = None

    def install(self) -> None:
        """Take the position behind the scripts."""
        addon_chain.put_behind(self, "scriptloader")

    def uninstall(self) -> None:
        addon_chain.remove(self)

    def client_connected(self, client: connection.Client) -> None:
        if self.runtime is None:
            return
        config = self.runtime.manager.config
        if config.lazy or config.upstreams:  # which upstream a client needs is known with its request
            lazy_upstream.connect_lazily(client)
        self.runtime.handshakes.connected(client)
        # On the ports of a dns mode that are ours already no client connects to mitmproxy.
        if self.runtime.nameserver is not None and _speaks_dns(client.proxy_mode):
            handler = ctx.master.addons.get("proxyserver").connections[client.id]  # type: ignore[no-untyped-call]
            handler.layer = DnsGuard(handler.layer.context, handler.layer)

    def client_disconnected(self, client: connection.Client) -> None:
        if self.runtime is not None:
            self.runtime.handshakes.done(client)

    def server_connected(self, data: server_hooks.ServerConnectionHookData) -> None:
        if self.runtime is not None and self.runtime.barrier.refuses(data.server, data.client.proxy_mode):
            _abort(data)

    def tls_clienthello(self, data: tls.ClientHelloData) -> None:
        if self.runtime is not None:
            self.runtime.handshakes.read_hello(data)

    async def tls_start_client(self, data: tls.TlsData) -> None:
        if self.runtime is not None:
            await self.runtime.handshakes.start_tls(data)

    async def quic_start_client(self, data: quic.QuicTlsData) -> None:
        if self.runtime is not None:
            await self.runtime.handshakes.start_quic(data)

    def tls_established_client(self, data: tls.TlsData) -> None:
        if self.runtime is not None:
            self.runtime.handshakes.done(data.context.client)

    def tls_start_server(self, data: tls.TlsData) -> None:
        if self.runtime is not None:
            prepare_tls(self.runtime.router, data)

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Handle a request that is for none of our challenges: ``ChallengeHooks`` keeps those from this hook."""
        if self.runtime is None:
            return
        self.runtime.responder.decline(flow, whole=False)
        if _is_http3_of_reverse_https(flow) and not flow.server_conn.connected:
            # mitmproxy would connect to the upstream over QUIC, which few speak; reverse:http3 is for those that do.
            flow.server_conn.transport_protocol = "tcp"

    def request(self, flow: http.HTTPFlow) -> None:
        if self.runtime is not None:
            self.runtime.responder.decline(flow, whole=True)

    async def dns_request(self, flow: dns.DNSFlow) -> None:
        if self.runtime is not None and self.runtime.nameserver is not None:
            await self.runtime.nameserver.respond(flow)
        _stop_if_hidden(flow)

    def dns_response(self, flow: dns.DNSFlow) -> None:
        _stop_if_hidden(flow)


def _stop_if_hidden(flow: Flow) -> None:
    """Keep a hidden challenge from the addons behind this one: mitmproxy's flow list, dumper and writer."""
    if is_hidden(flow):
        raise exceptions.AddonHalt


def _abort(data: server_hooks.ServerConnectionHookData) -> None:
    """Close a connection that has just been opened; what the client sends there is dropped.

    A replayed one has no handler and stays open: only the operator replays flows.
    """
    handler = ctx.master.addons.get("proxyserver").connections.get(data.client.id)  # type: ignore[no-untyped-call]
    if handler is not None:
        handler.transports[data.server].writer.transport.abort()


def _speaks_dns(mode: mode_specs.ProxyMode) -> bool:
    return is_plain(mode) or (isinstance(mode, mode_specs.ReverseMode) and mode.scheme == "dns")


def _is_http3_of_reverse_https(flow: http.HTTPFlow) -> bool:
    client, mode = flow.client_conn, flow.client_conn.proxy_mode
    return client.transport_protocol == "udp" and isinstance(mode, mode_specs.ReverseMode) and mode.scheme == "https"
