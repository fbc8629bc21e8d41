"""Which open connection to an upstream a request may use, in place of a new one.

This module knows how mitmproxy shares connections to upstreams among the requests of a client; it must not know where a
request goes. Two of its rules fail visitors (seen with 12.3.1):

* An HTTP/2 client gives each request to an HTTP/1 upstream a connection of its own. An HTTP/3 client does not: two
  requests at once were sent over one connection, and the client's connection crashed.
* A connection that could not be opened is remembered as long as the client is connected. A browser that met an upstream
  during its restart got 502 for minutes after that.
"""

from mitmproxy.connection import Connection
from mitmproxy.proxy import layer
from mitmproxy.proxy.layers.http import GetHttpConnection, HttpStream, is_h3_alpn


class ReusingStream(HttpStream):
    """mitmproxy's stream of one request; it differs only in the connections that it accepts."""

    def make_server_connection(self) -> layer.CommandGenerator[bool]:
        is_http3, connecting = is_h3_alpn(self.context.client.alpn), super().make_server_connection()
        reply: object = None
        while True:
            try:
                command = connecting.send(reply)
            except StopIteration as end:
                return bool(end.value)
            if isinstance(command, GetHttpConnection):
                kind = _ForHttp3 if is_http3 else _WithoutError
                command = kind(command.address, command.tls, command.via, command.transport_protocol)
            reply = yield command


class _WithoutError(GetHttpConnection):
    def connection_spec_matches(self, connection: Connection) -> bool:
        return connection.error is None and bool(super().connection_spec_matches(connection))


class _ForHttp3(_WithoutError):
    def connection_spec_matches(self, connection: Connection) -> bool:
        # Over QUIC a connection carries several requests at once.
        return connection.transport_protocol == "udp" and super().connection_spec_matches(connection)
