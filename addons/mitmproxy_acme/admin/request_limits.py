"""Entrance: what the admin API refuses by the head of a request, before a byte of its body is read.

This module knows lengths, and whom to ask who may enter; it must not know what is asked for.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

from tornado.httputil import HTTPMessageDelegate, HTTPServerRequest
from tornado.iostream import IOStream, StreamClosedError
from tornado.web import Application

from .auth import HttpError
from .base_handler import HEADERS, BaseHandler, problem
from .context import AdminContext

LONGEST_BODY = 65_536
# What is refused is still heard for so long, and so much of it: a flood must not keep the loop.
_LINGER, _MOST_READS = 1.0, 16
_MOST_DIGITS = 18
_AGAIN_IN = 1.0


class AdminApplication(Application):
    """Takes a body only from whom may send one, where its length is told before and is not too much.

    tornado reads chunks without a pause: 60,000 of one byte each kept the loop, and with it every handshake, for half
    a second. What is too long it refuses without a word.
    """

    def __init__(self, context: AdminContext, is_busy: Callable[[], bool], *arguments: Any, **settings: Any) -> None:
        """``is_busy`` says that so many requests are worked on that only those that are always answered may come."""
        super().__init__(*arguments, **settings)
        self._context = context
        self._is_busy = is_busy

    def find_handler(self, request: HTTPServerRequest, **settings: Any) -> Any:
        delegate = super().find_handler(request, **settings)
        try:
            _require_length(request)
            self._require_admission(request, cast(type[BaseHandler], delegate.handler_class))
        except HttpError as refused:
            return _Refusal(request, refused, self._context.manager.now())
        return delegate

    def _require_admission(self, request: HTTPServerRequest, resource: type[BaseHandler]) -> None:
        method = request.method or ""
        if not resource.offers(method):
            return  # 405, which tells nothing
        if request.headers.get("Content-Length", "0") != "0":
            self._context.guard.admit(method, request.headers, public=resource.public)
        if self._is_busy() and not resource.always:
            soon = self._context.manager.now() + _AGAIN_IN
            raise HttpError(503, "too many requests are worked on; ask again", until=soon)


def _require_length(request: HTTPServerRequest) -> None:
    length = request.headers.get("Content-Length", "")
    if "Transfer-Encoding" in request.headers:
        raise HttpError(411, "a body in chunks is not read; send it with its Content-Length")
    if length.isdecimal() and (len(length) > _MOST_DIGITS or int(length) > LONGEST_BODY):
        raise HttpError(413, f"a body of {LONGEST_BODY} bytes at most is read; send no more")


class _Refusal(HTTPMessageDelegate):
    """Says why a body is not read, and closes the connection that it would come by."""

    def __init__(self, request: HTTPServerRequest, refused: HttpError, now: float) -> None:
        self._connection = request.connection
        self._reply = _written(refused, now)

    async def headers_received(self, *_: object) -> None:
        """Answer; then read on for a moment, or a client that is still sending would not see it (RFC 9112, 9.6)."""
        stream: IOStream = self._connection.detach()  # type: ignore[union-attr]  # HTTP/1 has it
        with contextlib.suppress(StreamClosedError, TimeoutError, OSError):
            async with asyncio.timeout(_LINGER):
                await stream.write(self._reply)
                stream.socket.shutdown(socket.SHUT_WR)
                for _read in range(_MOST_READS):
                    await stream.read_bytes(LONGEST_BODY, partial=True)
        stream.close()


def _written(refused: HttpError, now: float) -> bytes:
    body = json.dumps(problem(refused.status, str(refused)))
    own = {"Content-Type": "application/problem+json", "Content-Length": str(len(body)), "Connection": "close"}
    own |= refused.headers(now)
    lines = [f"{name}: {value}" for name, value in {**HEADERS, **own}.items()]
    start = f"HTTP/1.1 {refused.status} {HTTPStatus(refused.status).phrase}"
    return "\r\n".join([start, *lines, "", body]).encode()
