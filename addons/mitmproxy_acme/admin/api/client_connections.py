"""Bounds on the clients of the admin API: how many at once, which one is closed for a new one, and how many requests
are served before the proxy's own connections get the event loop.

This module knows tornado's connections; it must not know requests or clients. tornado itself has no such bounds.
"""

import asyncio
import socket
from collections import deque
from typing import Any, cast

from tornado.http1connection import HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPConnection, HTTPMessageDelegate, RequestStartLine, ResponseStartLine
from tornado.iostream import IOStream

# In one pass of the event loop: a flood of requests delays a handshake for no longer than these take.
_ACCEPTED_AT_ONCE, _SERVED_AT_ONCE = 4, 4
_PAUSE = 1.0  # seconds without file descriptors, as in asyncio's own servers


class BoundedServer(HTTPServer):
    """A bounded number of connections: a new one replaces the one that has been idle for the longest.

    A connection is idle while it waits for its client: until a request is complete, and after the reply. If none is
    idle, the new one is closed.
    """

    def initialize(self, *arguments: Any, **settings: Any) -> None:
        """Take ``most``, the number of connections, and tornado's settings."""
        self._most: int = settings.pop("most")
        super().initialize(*arguments, **settings)
        self._open = 0
        self._idle: dict[HTTP1ServerConnection, None] = {}  # longest idle first
        self._evicted: set[HTTP1ServerConnection] = set()  # closed, but not ended yet
        self._gate = _Gate(_SERVED_AT_ONCE)
        self._listening: socket.socket | None = None

    def listen_on(self, listening: socket.socket) -> None:
        """Accept connections from a listening socket that does not block: few at a time, where tornado accepts 128."""
        self._listening = listening
        self._resume(asyncio.get_running_loop())

    def stop(self) -> None:
        """Accept no new connections."""
        super().stop()
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
            self._listening = None

    @property
    def at_work(self) -> int:
        """The number of connections whose request is complete but not answered yet."""
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
        self.answered(connection)
        return _QueuedRequest(super().start_request(server_conn, request_conn), self, connection, request_conn)

    async def turn(self) -> None:
        """Wait until earlier requests are served, a few in each pass of the loop."""
        await self._gate.enter()

    def complete(self, connection: HTTP1ServerConnection) -> None:
        """Note that the request is complete, and in progress from now."""
        self._idle.pop(connection, None)

    def answered(self, connection: HTTP1ServerConnection) -> None:
        """Note that the reply was sent, whether or not the client has read it."""
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

    def _resume(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._listening is not None:
            loop.add_reader(self._listening, self._accept, loop, self._listening)

    def _accept(self, loop: asyncio.AbstractEventLoop, listening: socket.socket) -> None:
        for _accepted in range(_ACCEPTED_AT_ONCE):
            try:
                connection, address = listening.accept()
            except (BlockingIOError, ConnectionAbortedError):  # no more are waiting, or the client has gone
                return
            except OSError:  # no file descriptor is left
                loop.remove_reader(listening)
                loop.call_later(_PAUSE, self._resume, loop)
                return
            connection.setblocking(False)
            self.handle_stream(IOStream(connection), address)

    def _evict(self) -> bool:
        """Close the connection that has been idle for the longest; return whether one was idle."""
        if not self._idle:
            return False
        longest = next(iter(self._idle))
        del self._idle[longest]
        self._evicted.add(longest)
        self._open -= 1
        longest.stream.close()
        return True


class _Gate:
    """Lets ``at_once`` through in each pass of the event loop, in order of arrival."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._let_through, loop)
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiting.append(waiter)
        await waiter

    def _let_through(self, loop: asyncio.AbstractEventLoop) -> None:
        for _entered in range(min(self._at_once, len(self._waiting))):
            waiter = self._waiting.popleft()
            if not waiter.done():  # it may have been cancelled
                waiter.set_result(None)
        if self._waiting:
            loop.call_soon(self._let_through, loop)


class _QueuedRequest(HTTPMessageDelegate):
    """One request of a connection: waits for its turn, and tells the server when it is complete."""

    def __init__(
        self,
        inner: HTTPMessageDelegate,
        server: BoundedServer,
        connection: HTTP1ServerConnection,
        request: HTTPConnection,
    ) -> None:
        self._inner = inner
        self._server = server
        self._connection = connection
        self._request = request

    async def headers_received(self, start_line: RequestStartLine | ResponseStartLine, headers: Any) -> None:
        if not self._connection.stream.closed():
            await self._server.turn()
        if self._connection.stream.closed():
            # Otherwise tornado would continue with the requests in its buffer, though the client has gone.
            self._request.detach()  # type: ignore[attr-defined]  # it is HTTP/1
            return
        if (more := self._inner.headers_received(start_line, headers)) is not None:
            await more

    def data_received(self, chunk: bytes) -> Any:
        return self._inner.data_received(chunk)

    def finish(self) -> None:
        self._server.complete(self._connection)
        self._inner.finish()

    def on_connection_close(self) -> None:
        self._inner.on_connection_close()
