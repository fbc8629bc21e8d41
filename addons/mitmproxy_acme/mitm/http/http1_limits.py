"""Limits the head of a request over HTTP/1 in reverse mode, and joins the chunks of its body.

This module knows how mitmproxy reads HTTP/1; it must not know what is requested. mitmproxy reads heads of any length:
5 MB of header lines kept the event loop for 2 s, and took 300 MB (measured). For HTTP/2 its library has such a limit.
Each chunk of a body is an event of its own to mitmproxy: 64 KB in chunks of one byte kept the loop for 1.5 s, a third
of it in h11, which parses the chunks.
"""

import re
import time
from typing import Any, cast

import h11
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import http as layers_http
from mitmproxy.proxy.layers.http._http1 import Http1Server, TBodyReader
from mitmproxy.proxy.mode_specs import ReverseMode

from ...core.token_bucket import TokenBucket

_MAX_HEAD = 65_536
# A chunk of fewer bytes is short; so many short chunks may come at once on a connection, and a second after that.
_SHORT, _BURST, _PER_SECOND = 16, 2_000, 1_000.0
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_TOO_LONG = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"Connection: close\r\nContent-Length: 0\r\n\r\n"  # RFC 6585 section 5
)


class Http1Limits:
    """Replaces mitmproxy's HTTP/1 layer by one with limits, from the next connection on."""

    def install(self) -> None:
        vars(layers_http)["Http1Server"] = _LimitedHttp1Server

    def uninstall(self) -> None:
        vars(layers_http)["Http1Server"] = Http1Server


class JoinedBodyReader:
    """A reader of a body that returns all data that has arrived as one piece."""

    def __init__(self, reader: TBodyReader, bucket: TokenBucket) -> None:
        """``reader`` is one of h11's, which returns each chunk by itself; ``bucket`` limits short chunks."""
        self._reader = reader
        self._bucket = bucket
        self._next: h11.Event | None = None

    def __call__(self, buffer: Any) -> h11.Event | None:
        """Return the next event, or None until more arrives. Raises ``h11.ProtocolError``."""
        if (waiting := self._next) is not None:
            self._next = None
            return waiting
        pieces = []
        while isinstance(event := self._reader(buffer), h11.Data):
            pieces.append(event.data)
            if len(event.data) < _SHORT and not self._bucket.take():
                raise h11.RemoteProtocolError("the body has too many short chunks")
        if not pieces:
            return cast(h11.Event | None, event)
        self._next = event
        return h11.Data(data=b"".join(pieces))

    def read_eof(self) -> h11.EndOfMessage:
        """Return the end of a body that ends with the connection. Raises ``h11.ProtocolError``."""
        return self._reader.read_eof()


class _LimitedHttp1Server(Http1Server):
    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._bucket = TokenBucket(_BURST, _PER_SECOND, time.monotonic)

    @property  # type: ignore[override]  # mitmproxy calls it as one of its own
    def body_reader(self) -> JoinedBodyReader:
        return self._body_reader

    @body_reader.setter
    def body_reader(self, reader: TBodyReader) -> None:
        self._body_reader = JoinedBodyReader(reader, self._bucket)

    def read_headers(self, event: events.ConnectionEvent) -> layer.CommandGenerator[None]:
        if isinstance(event, events.DataReceived) and self._is_too_long():
            yield commands.SendData(self.conn, _TOO_LONG)
            yield commands.CloseConnection(self.conn)
            self.state = self.done
            return
        yield from super().read_headers(event)

    def _is_too_long(self) -> bool:
        if len(self.buf) <= _MAX_HEAD or not isinstance(self.context.client.proxy_mode, ReverseMode):
            return False
        # Without a copy: other requests may wait behind the head.
        return _END_OF_HEAD.search(self.buf._data, 0, _MAX_HEAD) is None
