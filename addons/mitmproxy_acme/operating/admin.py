"""The admin API's server: tornado, on mitmproxy's own loop.

This module knows sockets, routes and their bounds; it must not know what any of them does (``api`` does).
"""

import asyncio
import contextlib
import json
import logging
import os
import socket
from http import HTTPStatus
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPMessageDelegate, HTTPServerRequest
from tornado.iostream import IOStream, StreamClosedError
from tornado.web import Application

from ..errors import ConfigError
from ..operation import AdminAddress
from . import api, page
from .desk import Desk
from .guard import Refused
from .resource import HEADERS, Nothing, problem

logger = logging.getLogger(__name__)

# What a request may be: nobody needs more, and a stranger gets no more.
_LONGEST_BODY, _LONGEST_HEADERS = 65_536, 16_384
_BODY_WITHIN, _REQUEST_WITHIN = 10.0, 30.0
# What is refused is still heard for so long, and so much of it: a flood must not keep the loop.
_LINGER, _MOST_READS = 1.0, 16
_MOST_DIGITS = 18
# Each holds a file descriptor, and mitmproxy needs them for its own.
_MOST_CONNECTIONS = 256


class _BoundedServer(HTTPServer):
    """At most so many connections at once; one more is closed as soon as it is open. tornado knows no such bound."""

    def initialize(self, *arguments: Any, **settings: Any) -> None:
        super().initialize(*arguments, **settings)
        self._open = 0

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        if self._open >= _MOST_CONNECTIONS:
            stream.close()
            return
        self._open += 1
        super().handle_stream(stream, address)

    def on_close(self, server_conn: object) -> None:
        self._open -= 1
        super().on_close(server_conn)


class _Sized(Application):
    """Takes a body only where its length is told before, and is not too much.

    tornado reads chunks without a pause: 60,000 of one byte each kept the loop, and with it every handshake, for half
    a second. What is too long it refuses without a word.
    """

    def find_handler(self, request: HTTPServerRequest, **settings: Any) -> Any:
        length = request.headers.get("Content-Length", "")
        if "Transfer-Encoding" in request.headers:
            return _Refusal(request, Refused(411, "a body in chunks is not read; send it with its Content-Length"))
        if length.isdecimal() and (len(length) > _MOST_DIGITS or int(length) > _LONGEST_BODY):
            return _Refusal(request, Refused(413, f"a body of {_LONGEST_BODY} bytes at most is read; send no more"))
        return super().find_handler(request, **settings)


class _Refusal(HTTPMessageDelegate):
    """Says why a body is not read, and closes the connection that it would come by."""

    def __init__(self, request: HTTPServerRequest, refused: Refused) -> None:
        self._connection = request.connection
        self._refused = refused

    async def headers_received(self, *_: object) -> None:
        """Answer; then read on for a moment, or a client that is still sending would not see it (RFC 9112, 9.6)."""
        stream: IOStream = self._connection.detach()  # type: ignore[union-attr]  # HTTP/1 has it
        with contextlib.suppress(StreamClosedError, TimeoutError, OSError):
            async with asyncio.timeout(_LINGER):
                await stream.write(_written(self._refused))
                stream.socket.shutdown(socket.SHUT_WR)
                for _read in range(_MOST_READS):
                    await stream.read_bytes(_LONGEST_BODY, partial=True)
        stream.close()


def _written(refused: Refused) -> bytes:
    body = json.dumps(problem(refused.status, str(refused)))
    own = {"Content-Type": "application/problem+json", "Content-Length": str(len(body)), "Connection": "close"}
    lines = [f"{name}: {value}" for name, value in {**HEADERS, **own}.items()]
    start = f"HTTP/1.1 {refused.status} {HTTPStatus(refused.status).phrase}"
    return "\r\n".join([start, *lines, "", body]).encode()


class Admin:
    """The admin API of one configuration. Use it from mitmproxy's event loop; ``start`` and ``stop`` do not wait."""

    def __init__(self, desk: Desk, address: AdminAddress) -> None:
        self._desk = desk
        self._address = address
        application = _Sized(
            [
                *((path, page.File, {"desk": desk, "name": name}) for path, name in page.FILES),
                *((path, resource, {"desk": desk}) for path, resource in api.ROUTES),
            ],
            default_handler_class=Nothing,
            default_handler_args={"desk": desk},
            log_function=lambda _: None,
        )
        self._server = _BoundedServer(
            application,
            max_body_size=_LONGEST_BODY,
            max_header_size=_LONGEST_HEADERS,
            body_timeout=_BODY_WITHIN,
            idle_connection_timeout=_REQUEST_WITHIN,
        )

    def start(self) -> None:
        """Listen. Raises ``ConfigError`` where the address cannot be had."""
        family = socket.AF_INET6 if ":" in self._address.host else socket.AF_INET
        try:
            listening = socket.create_server((self._address.host, self._address.port), family=family)
        except OSError as error:
            raise ConfigError(
                f"acme_admin_listen: {self._address} cannot be had ({os.strerror(error.errno or 0)}); choose another "
                "port, or end what listens there"
            ) from None
        listening.setblocking(False)
        self._server.add_socket(listening)
        logger.info("the status page and the admin API are at http://%s/", self._address)

    def stop(self) -> None:
        """Take no new connections."""
        self._server.stop()

    async def close(self) -> None:
        """End the connections that are open, the watchers' among them."""
        self._desk.live.close()
        await self._server.close_all_connections()
