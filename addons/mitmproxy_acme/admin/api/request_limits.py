"""What the admin API refuses from the head of a request, before it reads any of the body.

This module knows the bounds on a request, and calls ``auth`` for admission; it must not know what is asked for.
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

from ..context import AdminContext
from ..problems import BUSY, HttpError, Problem
from .base_handler import HEADERS, BaseHandler

LONGEST_BODY = 65_536
# Seconds and reads for which a refused request is still read, so that its client sees the reply; bounded for floods.
_LINGER, _MOST_READS = 1.0, 16
_MOST_DIGITS = 18
_RETRY_AFTER = 1.0


class AdminApplication(Application):
    """Reads a body only from an admitted client, and only with a Content-Length within the bound.

    tornado reads chunks without a pause: 60,000 chunks of one byte each blocked the event loop, and with it every
    handshake, for half a second. It also refuses a body that is too long without any reply.
    """

    def __init__(self, context: AdminContext, is_busy: Callable[[], bool], *arguments: Any, **settings: Any) -> None:
        """While ``is_busy``, only handlers that are ``always`` answered are admitted."""
        super().__init__(*arguments, **settings)
        self._context = context
        self._is_busy = is_busy

    def find_handler(self, request: HTTPServerRequest, **settings: Any) -> Any:
        delegate = super().find_handler(request, **settings)
        try:
            _require_length(request)
            self._require_admission(request, cast(type[BaseHandler], delegate.handler_class))
        except HttpError as error:
            return _Refusal(request, error.problem, self._context.manager.now())
        return delegate

    def _require_admission(self, request: HTTPServerRequest, handler: type[BaseHandler]) -> None:
        method = request.method or ""
        if not handler.offers(method):
            return  # the reply is 405, which reveals nothing
        if request.headers.get("Content-Length", "0") != "0":
            self._context.guard.admit(method, request.headers, public=handler.public)
        if self._is_busy() and not handler.always:
            retry_at = self._context.manager.now() + _RETRY_AFTER
            raise HttpError.of(BUSY, "too many requests at once; try again", retry_at=retry_at)


def _require_length(request: HTTPServerRequest) -> None:
    length = request.headers.get("Content-Length", "")
    if "Transfer-Encoding" in request.headers:
        raise HttpError(411, "chunked bodies are not accepted; send the body with its Content-Length")
    if length.isdecimal() and (len(length) > _MOST_DIGITS or int(length) > LONGEST_BODY):
        raise HttpError(413, f"the body is too long; send at most {LONGEST_BODY} bytes")


class _Refusal(HTTPMessageDelegate):
    """Replies why the body is not read, and closes the connection."""

    def __init__(self, request: HTTPServerRequest, problem: Problem, now: float) -> None:
        self._connection = request.connection
        self._reply = _encode(problem, now)

    async def headers_received(self, *_: object) -> None:
        """Reply; then read on for a moment, or a client that is still sending would miss the reply (RFC 9112, 9.6)."""
        stream: IOStream = self._connection.detach()  # type: ignore[union-attr]  # HTTP/1 has it
        with contextlib.suppress(StreamClosedError, TimeoutError, OSError):
            async with asyncio.timeout(_LINGER):
                await stream.write(self._reply)
                stream.socket.shutdown(socket.SHUT_WR)
                for _read in range(_MOST_READS):
                    await stream.read_bytes(LONGEST_BODY, partial=True)
        stream.close()


def _encode(problem: Problem, now: float) -> bytes:
    body = json.dumps(problem.document())
    headers = HEADERS | {"Content-Length": str(len(body)), "Connection": "close"} | problem.headers(now)
    lines = [f"{name}: {value}" for name, value in headers.items()]
    start = f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}"
    return "\r\n".join([start, *lines, "", body]).encode()
