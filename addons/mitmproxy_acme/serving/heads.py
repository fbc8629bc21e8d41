"""Bounds the head of a request over HTTP/1, in reverse mode.

This module knows mitmproxy's reader of HTTP/1; it must not know what is asked. mitmproxy reads heads of any length:
5 MB of header lines kept the loop for 2 s, and took 300 MB (measured). HTTP/2 has the same bound already, in its
library.
"""

import re

from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.layers import http as layers_http
from mitmproxy.proxy.layers.http._http1 import Http1Server

from .strangers import is_reverse

_MOST = 65_536
_END = re.compile(rb"\n\r?\n")
_TOO_LONG = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"Connection: close\r\nContent-Length: 0\r\n\r\n"  # RFC 6585 section 5
)


class Heads:
    """Has mitmproxy read clients' requests by a reader with a bound, from the next connection on."""

    def enter(self) -> None:
        vars(layers_http)["Http1Server"] = _BoundedHttp1Server

    def leave(self) -> None:
        vars(layers_http)["Http1Server"] = Http1Server


class _BoundedHttp1Server(Http1Server):
    def read_headers(self, event: events.ConnectionEvent) -> layer.CommandGenerator[None]:
        if isinstance(event, events.DataReceived) and self._is_too_long():
            yield commands.SendData(self.conn, _TOO_LONG)
            yield commands.CloseConnection(self.conn)
            self.state = self.done
            return
        yield from super().read_headers(event)

    def _is_too_long(self) -> bool:
        if len(self.buf) <= _MOST or not is_reverse(self.context.client):
            return False
        return _END.search(self.buf._data, 0, _MOST) is None  # without a copy: other requests may wait behind the head
