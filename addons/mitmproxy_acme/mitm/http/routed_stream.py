"""Sends each request to the upstream of its host (``acme_upstreams``).

This module knows how mitmproxy handles one request; it must not know which host belongs to which upstream. In reverse
mode mitmproxy sends all requests to the server of the connection's context, and replaces ``Host`` by that server's
name before any hook runs. So the decision is made earlier, in mitmproxy's own stream of one request: it gets a context
with another server, and all that mitmproxy does from there on is right. A request is refused as late as possible, in
place of its connection to an upstream: challenges and other scripts come first.
"""

from collections.abc import Generator
from typing import ClassVar

from mitmproxy import http, tls
from mitmproxy.connection import Server
from mitmproxy.proxy import commands, layer
from mitmproxy.proxy.layers import http as layers_http
from mitmproxy.proxy.layers.http import HttpStream
from mitmproxy.proxy.layers.http._events import RequestHeaders
from mitmproxy.proxy.layers.http._hooks import HttpRequestHeadersHook, HttpResponseHeadersHook

from .connection_reuse import ReusingStream
from .upstream_router import Refusal, UpstreamRouter, take_authority

_REASONS = {
    Refusal.NO_HOST: "Bad Request: the request names no host, or several\n",
    Refusal.MISDIRECTED: "Misdirected Request: this server has no site of that name\n",
}


class Streams:
    """Replaces mitmproxy's stream of one request by one of ours, from the next request on."""

    def install(self, router: UpstreamRouter | None) -> None:
        """Route by ``router``; without one nothing is asked for a request."""
        _RoutedStream.router = router
        vars(layers_http)["HttpStream"] = ReusingStream if router is None else _RoutedStream

    def uninstall(self) -> None:
        _RoutedStream.router = None
        vars(layers_http)["HttpStream"] = HttpStream


class _RoutedStream(ReusingStream):
    router: ClassVar[UpstreamRouter | None] = None
    _refusal: Refusal | None = None
    _authority: str | None = None
    _host_header: str | None = None
    _destination: tuple[str, int, str] | None = None

    def state_wait_for_request_headers(self, event: RequestHeaders) -> layer.CommandGenerator[None]:
        handling = super().state_wait_for_request_headers(event)
        router = self.router
        if router is not None and router.routes(self.context.client.proxy_mode):
            keeps_host = self._find_route(router, event)
            yield from self._with_host_header(handling, event.request) if keeps_host else handling
        else:
            yield from handling

    def _find_route(self, router: UpstreamRouter, event: RequestHeaders) -> bool:
        """Decide where the request goes, and say whether an entry decides about its ``Host``."""
        request = event.request
        if event.replay_flow:  # it goes where it went before, and is the same
            self._host_header = request.host_header
            return router.has_upstream((request.host, request.port), tls=request.scheme == "https")
        self._authority = self._host_header = take_authority(request)
        route = router.find(self._authority)
        if isinstance(route, Refusal):
            self._refusal = route
        elif route is not None:
            self.context.server = Server(address=route.address, tls=route.tls)
            self._host_header = route.host_header or self._authority
        return route is not None

    def _with_host_header(
        self, handling: Generator[commands.Command, object, None], request: http.Request
    ) -> layer.CommandGenerator[None]:
        """Pass all commands on, and set ``Host`` before the first hook sees the request: mitmproxy has replaced it."""
        reply: object = None
        while True:
            try:
                command = handling.send(reply)
            except StopIteration:
                return
            if isinstance(command, HttpRequestHeadersHook):
                request.host_header = self._host_header
                self._destination = _destination(request)
            reply = yield command

    def make_server_connection(self) -> layer.CommandGenerator[bool]:
        """Connect, or send a reply instead; a script that has changed the destination of a request decides itself."""
        if self._refusal is None or _destination(self.flow.request) != self._destination:
            return (yield from super().make_server_connection())
        if self.router is not None:
            self.router.report(self._refusal, self._authority)
        yield from self._refuse(self._refusal)
        return False

    def _refuse(self, refusal: Refusal) -> layer.CommandGenerator[None]:
        self.flow.response = _response(refusal, self.flow.request.method)
        yield HttpResponseHeadersHook(self.flow)
        if (yield from self.check_killed(True)):
            return
        yield from self.send_response()
        if self.client_state != self.state_done and self.flow.live:  # the request is streamed, and has not ended
            yield from self.flow_done()


def prepare_tls(router: UpstreamRouter | None, start: tls.TlsData) -> None:
    """Have the certificate of an upstream of ours checked for the host of its URL, and offer what TCP can carry."""
    server, client = start.conn, start.context.client
    if router is None or not isinstance(server, Server) or not router.routes(client.proxy_mode):
        return
    if server.address is None or not router.has_upstream(server.address, tls=True):
        return
    # With keep_host_header mitmproxy would take the client's server name for the address of the mode's own upstream.
    server.sni = server.address[0]
    if client.transport_protocol == "udp":  # it would offer the client's h3, for which many servers close
        server.alpn_offers = [b"http/1.1"]


def _destination(request: http.Request) -> tuple[str, int, str]:
    return request.host, request.port, request.scheme


def _response(refusal: Refusal, method: str) -> http.Response:
    headers = {"Content-Type": "text/plain; charset=us-ascii"}
    response = http.Response.make(refusal, _REASONS[refusal], headers)
    if method == "HEAD":  # mitmproxy would send the body, and the client would read it as the next reply
        response.data.content = b""
    return response
