"""Bounds the head of a request over HTTP/1, in reverse mode, and joins the chunks of its body.

This module knows mitmproxy's reader of HTTP/1; it must not know what is asked. mitmproxy reads heads of any length:
5 MB of header lines kept the loop for 2 s, and took 300 MB (measured). HTTP/2 has the same bound already, in its
library. Each chunk of a body is an event of its own to mitmproxy: 64 KB in chunks of one byte kept the loop for 1.5 s,
of which h11, which finds the chunks, needs a third.
"""

import re
import time
from typing import Any, cast

import h11
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import http as layers_http
from mitmproxy.proxy.layers.http._http1 import Http1Server, TBodyReader

from ..tls.unknown_names import is_reverse
from ..token_bucket import TokenBucket

_MOST = 65_536
# Chunks so short, in bytes; so many of them at once on a connection, and a second from then on.
_SHORT, _CHUNKS, _A_SECOND = 16, 2_000, 1_000.0
_END = re.compile(rb"\n\r?\n")
_TOO_LONG = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"Connection: close\r\nContent-Length: 0\r\n\r\n"  # RFC 6585 section 5
)


class Http1Limits:
    """Has mitmproxy read clients' requests by a reader with a bound, from the next connection on."""

    def install(self) -> None:
        vars(layers_http)["Http1Server"] = _BoundedHttp1Server

    def uninstall(self) -> None:
        vars(layers_http)["Http1Server"] = Http1Server


class Joined:
    """A reader of a body that gives all the data that has arrived as one piece."""

    def __init__(self, reader: TBodyReader, pace: TokenBucket) -> None:
        """``reader`` is one of h11's, to which the pieces are what the client made them; ``pace`` bounds short ones."""
        self._reader = reader
        self._pace = pace
        self._next: h11.Event | None = None

    def __call__(self, buffer: Any) -> h11.Event | None:
        """Return the next event, or None where more has to arrive. Raises ``h11.ProtocolError``."""
        if (waiting := self._next) is not None:
            self._next = None
            return waiting
        pieces = []
        while isinstance(event := self._reader(buffer), h11.Data):
            pieces.append(event.data)
            if len(event.data) < _SHORT and not self._pace.take():
                raise h11.RemoteProtocolError("the body has too many short chunks")
        if not pieces:
            return cast(h11.Event | None, event)
        self._next = event
        return h11.Data(data=b"".join(pieces))

    def read_eof(self) -> h11.EndOfMessage:
        """Return the end of a body that ends with the connection. Raises ``h11.ProtocolError``."""
        return self._reader.read_eof()


class _BoundedHttp1Server(Http1Server):
    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._pace = TokenBucket(_CHUNKS, _A_SECOND, time.monotonic)

    @property  # type: ignore[override]  # it is called as mitmproxy's are
    def body_reader(self) -> Joined:
        return self._body_reader

    @body_reader.setter
    def body_reader(self, reader: TBodyReader) -> None:
        self._body_reader = Joined(reader, self._pace)

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
