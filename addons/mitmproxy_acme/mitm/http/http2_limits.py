"""Limits the frames of HTTP/2 that carry no data, in reverse mode.

This module knows the frames of HTTP/2 and how mitmproxy reads them; it must not know what is requested. The library
takes some 200 µs for a frame, on the event loop, and a frame needs only nine bytes: 64 KB of empty frames, which are
read at once, held all other clients for 1.5 s (measured). A stream that is opened and reset at once (CVE-2023-44487)
costs more.
"""

import time
from collections.abc import Callable

from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import http as layers_http
from mitmproxy.proxy.layers.http._http2 import Http2Server
from mitmproxy.proxy.mode_specs import ReverseMode

from ...core.token_bucket import TokenBucket

# So many at once, and a second after that: a browser that leaves a page resets some hundred streams.
_BURST, _PER_SECOND = 1_000, 100.0
_PREFACE_SIZE, _HEADER_SIZE = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 9
# Types of frames (RFC 9113 section 6). WINDOW_UPDATE is not counted: a long download needs very many.
_DATA, _PRIORITY, _RST_STREAM, _SETTINGS, _PING, _CONTINUATION = 0, 2, 3, 4, 6, 9
_WITHOUT_DATA = frozenset((_PRIORITY, _RST_STREAM, _SETTINGS, _PING, _CONTINUATION))
_END_STREAM = 1
# GOAWAY (RFC 9113 section 6.8) with ENHANCE_YOUR_GOAWAY.
_GOAWAY = bytes((0, 0, 8, 7, 0, 0, 0, 0, 0)) + (2**31 - 1).to_bytes(4) + (11).to_bytes(4)


class Http2Limits:
    """Replaces mitmproxy's HTTP/2 layer by one with limits, from the next connection on."""

    def install(self) -> None:
        vars(layers_http)["Http2Server"] = _LimitedHttp2Server

    def uninstall(self) -> None:
        vars(layers_http)["Http2Server"] = Http2Server


class EmptyFrameCounter:
    """Counts the frames of one connection that carry no data, before anything else reads them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._bucket = TokenBucket(_BURST, _PER_SECOND, clock)
        self._skip, self._header = _PREFACE_SIZE, b""

    def is_flood(self, data: bytes) -> bool:
        """Say whether there are too many, counting ``data``, which may begin and end within a frame."""
        at = 0
        while True:
            step = min(self._skip, len(data) - at)
            self._skip -= step
            at += step
            missing = _HEADER_SIZE - len(self._header)
            self._header += data[at : at + missing]
            at += missing
            if len(self._header) < _HEADER_SIZE:
                return False
            header, self._header = self._header, b""
            self._skip = int.from_bytes(header[:3])
            if _is_without_data(header) and not self._bucket.take():
                return True


class _LimitedHttp2Server(Http2Server):
    def __init__(self, context: Context) -> None:
        super().__init__(context)
        is_reverse = isinstance(context.client.proxy_mode, ReverseMode)
        self._counter = EmptyFrameCounter() if is_reverse else None

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        data = event.data if isinstance(event, events.DataReceived) else b""
        if data and self._counter is not None and self._counter.is_flood(data):
            yield commands.SendData(self.conn, _GOAWAY)
            yield from self.close_connection("too many frames of HTTP/2 that carry no data")
            return
        yield from super()._handle_event(event)


def _is_without_data(header: bytes) -> bool:
    type, flags = header[3], header[4]
    return type in _WITHOUT_DATA or (type == _DATA and not any(header[:3]) and not flags & _END_STREAM)
