"""Bounds the frames of HTTP/2 that carry nothing, in reverse mode.

This module knows the frames of HTTP/2 and mitmproxy's reader of them; it must not know what is asked. A frame takes the
library some 200 µs on the loop, and needs nine bytes: 64 KB of empty ones, which are read at once, held everybody else
for 1.5 s (measured); a stream that is opened and reset at once (CVE-2023-44487) costs more.
"""

import time
from collections.abc import Callable

from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import http as layers_http
from mitmproxy.proxy.layers.http._http2 import Http2Server

from ..tls.unknown_names import is_reverse
from ..token_bucket import TokenBucket

# So many at once, and a second from then on: a browser that leaves a page resets some hundred streams.
_BURST, _A_SECOND = 1_000, 100.0
_PREFACE, _HEAD = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 9
# Types of frames (RFC 9113 section 6). WINDOW_UPDATE is not counted: a long download needs very many.
_DATA, _PRIORITY, _RST_STREAM, _SETTINGS, _PING, _CONTINUATION = 0, 2, 3, 4, 6, 9
_CARRY_NOTHING = frozenset((_PRIORITY, _RST_STREAM, _SETTINGS, _PING, _CONTINUATION))
_END_STREAM = 1
# GOAWAY (RFC 9113 section 6.8) with ENHANCE_YOUR_CALM.
_CALM = bytes((0, 0, 8, 7, 0, 0, 0, 0, 0)) + (2**31 - 1).to_bytes(4) + (11).to_bytes(4)


class Http2Limits:
    """Has mitmproxy read clients' frames by a reader with a bound, from the next connection on."""

    def install(self) -> None:
        vars(layers_http)["Http2Server"] = _BoundedHttp2Server

    def uninstall(self) -> None:
        vars(layers_http)["Http2Server"] = Http2Server


class Count:
    """Counts the frames of one connection that carry nothing, before anything else reads them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._pace = TokenBucket(_BURST, _A_SECOND, clock)
        self._skip, self._head = _PREFACE, b""

    def is_flood(self, data: bytes) -> bool:
        """Say whether there are too many, with what has arrived next; it may begin and end within a frame."""
        at = 0
        while True:
            step = min(self._skip, len(data) - at)
            self._skip -= step
            at += step
            self._head, at = self._head + data[at : at + _HEAD - len(self._head)], at + _HEAD - len(self._head)
            if len(self._head) < _HEAD:
                return False
            head, self._head = self._head, b""
            self._skip = int.from_bytes(head[:3])
            if _carries_nothing(head) and not self._pace.take():
                return True


class _BoundedHttp2Server(Http2Server):
    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._count = Count() if is_reverse(context.client) else None

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        data = event.data if isinstance(event, events.DataReceived) else b""
        if data and self._count is not None and self._count.is_flood(data):
            yield commands.SendData(self.conn, _CALM)
            yield from self.close_connection("too many frames of HTTP/2 that carry nothing")
            return
        yield from super()._handle_event(event)


def _carries_nothing(head: bytes) -> bool:
    type, flags = head[3], head[4]
    return type in _CARRY_NOTHING or (type == _DATA and not any(head[:3]) and not flags & _END_STREAM)
