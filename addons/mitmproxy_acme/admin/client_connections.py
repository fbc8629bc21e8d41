"""Connections: how many clients of the admin API there may be at once, which of them has to go for a new one, and how
many are served before the proxy's own connections have their turn.

This module knows tornado's connections; it must not know what is asked for, or who asks. tornado knows no such bounds.
"""

import asyncio
import socket
from collections import deque
from typing import Any, cast

from tornado.http1connection import HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPConnection, HTTPMessageDelegate, RequestStartLine, ResponseStartLine
from tornado.iostream import IOStream

# In one pass of the event loop: a flood of requests keeps no handshake waiting for longer than these take.
_ACCEPTED_AT_ONCE, _SERVED_AT_ONCE = 4, 4
_PAUSE = 1.0  # seconds without files, as asyncio's own servers have it


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
        self._gate = _Gate(_SERVED_AT_ONCE)
        self._listening: socket.socket | None = None

    def listen_on(self, listening: socket.socket) -> None:
        """Take connections from a socket that listens and does not block: few at a time, where tornado takes 128."""
        self._listening = listening
        self._resume(asyncio.get_running_loop())

    def stop(self) -> None:
        """Take no new connections."""
        super().stop()
        if self._listening is not None:
            asyncio.get_running_loop().remove_reader(self._listening)
            self._listening.close()
            self._listening = None

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
        self.answered(connection)
        return _Turn(super().start_request(server_conn, request_conn), self, connection, request_conn)

    async def turn(self) -> None:
        """Wait until the requests that came before are served, a few in each pass of the loop."""
        await self._gate.enter()

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

    def _resume(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._listening is not None:
            loop.add_reader(self._listening, self._accept, loop, self._listening)

    def _accept(self, loop: asyncio.AbstractEventLoop, listening: socket.socket) -> None:
        for _accepted in range(_ACCEPTED_AT_ONCE):
            try:
                connection, address = listening.accept()
            except (BlockingIOError, ConnectionAbortedError):  # none waits any more, or it has gone already
                return
            except OSError:  # no file is left for it
                loop.remove_reader(listening)
                loop.call_later(_PAUSE, self._resume, loop)
                return
            connection.setblocking(False)
            self.handle_stream(IOStream(connection), address)

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


class _Gate:
    """Lets so many through in each pass of the event loop, in order of arrival."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._let_through, loop)
        place: asyncio.Future[None] = loop.create_future()
        self._waiting.append(place)
        await place

    def _let_through(self, loop: asyncio.AbstractEventLoop) -> None:
        for _entered in range(min(self._at_once, len(self._waiting))):
            place = self._waiting.popleft()
            if not place.done():  # it may have been cancelled
                place.set_result(None)
        if self._waiting:
            loop.call_soon(self._let_through, loop)


class _Turn(HTTPMessageDelegate):
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
            # tornado would go on with the requests that are in its buffer, and with nobody to answer.
            self._request.detach()  # type: ignore[attr-defined]  # HTTP/1 has it
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
