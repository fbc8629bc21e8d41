"""Connections: how many clients of the admin API there may be at once, and which of them has to go for a new one.

This module knows tornado's connections; it must not know what is asked for, or who asks. tornado knows no such bound.
"""

from typing import Any, cast

from tornado.http1connection import HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPConnection, HTTPMessageDelegate, RequestStartLine, ResponseStartLine
from tornado.iostream import IOStream


class BoundedServer(HTTPServer):
    """At most so many connections: a new one takes the place of the one that has been idle for the longest.

    Idle is a connection that waits for its client: until a request is complete, and from the reply on. Where none is,
    the new one is closed.
    """

    def initialize(self, *arguments: Any, **settings: Any) -> None:
        """Take ``most``, the number of connections, beside tornado's settings."""
        self._most: int = settings.pop("most")
        super().initialize(*arguments, **settings)
        self._open = 0
        self._idle: dict[HTTP1ServerConnection, None] = {}  # the one that is idle for the longest comes first
        self._evicted: set[HTTP1ServerConnection] = set()  # closed, and not ended yet

    @property
    def at_work(self) -> int:
        """The number of connections whose request is complete and not answered yet."""
        return self._open - len(self._idle)

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        if self._open >= self._most and not self._evict():
            stream.close()
            return
        self._open += 1
        super().handle_stream(stream, address)

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        connection = cast(HTTP1ServerConnection, server_conn)
        self._idle.pop(connection, None)
        self._idle[connection] = None
        return _Turn(super().start_request(server_conn, request_conn), self, connection)

    def complete(self, connection: HTTP1ServerConnection) -> None:
        """Note that its request is complete, and worked on from now."""
        self._idle.pop(connection, None)

    def answered(self, connection: HTTP1ServerConnection) -> None:
        """Note that its reply was made; the client may take its time to read it."""
        if connection in self._connections and connection not in self._evicted:
            self._idle[connection] = None

    def on_close(self, server_conn: object) -> None:
        connection = cast(HTTP1ServerConnection, server_conn)
        self._idle.pop(connection, None)
        if connection in self._evicted:
            self._evicted.remove(connection)
        else:
            self._open -= 1
        super().on_close(server_conn)

    def _evict(self) -> bool:
        """Close the connection that has been idle for the longest; return whether there was one."""
        if not self._idle:
            return False
        longest = next(iter(self._idle))
        del self._idle[longest]
        self._evicted.add(longest)
        self._open -= 1
        longest.stream.close()
        return True


class _Turn(HTTPMessageDelegate):
    """One request of a connection: tells the server when it is complete."""

    def __init__(self, inner: HTTPMessageDelegate, server: BoundedServer, connection: HTTP1ServerConnection) -> None:
        self._inner = inner
        self._server = server
        self._connection = connection

    def headers_received(self, start_line: RequestStartLine | ResponseStartLine, headers: Any) -> Any:
        return self._inner.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Any:
        return self._inner.data_received(chunk)

    def finish(self) -> None:
        self._server.complete(self._connection)
        self._inner.finish()

    def on_connection_close(self) -> None:
        self._inner.on_connection_close()
