"""Connections to the admin API are bounded, and those that wait for their client make room."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from tornado.web import Application, RequestHandler

from mitmproxy_acme.admin.api.client_connections import BoundedServer, _Gate

type Connect = Callable[..., Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]

_ASK = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
_WAIT = b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n"


_SERVED: list[str] = []


class Now(RequestHandler):
    def get(self) -> None:
        _SERVED.append(self.request.path)
        self.finish("now")


class Later(RequestHandler):
    async def get(self) -> None:
        await self.settings["released"].wait()
        self.finish("later")


@pytest.fixture
def released() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def server(released: asyncio.Event) -> AsyncIterator[BoundedServer]:
    """A server that takes three connections."""
    application = Application(
        [("/", Now), ("/wait", Later)],
        released=released,
        log_function=lambda handler: bounded.answered(handler.request.server_connection),
    )
    bounded: BoundedServer = BoundedServer(application, most=3)
    yield bounded
    bounded.stop()
    await bounded.close_all_connections()


@pytest.fixture
async def connect(server: BoundedServer) -> AsyncIterator[Connect]:
    """Open a connection, and send something; what was opened is closed at the end."""
    opened = list[asyncio.StreamWriter]()
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    port = listening.getsockname()[1]
    server.listen_on(listening)

    async def open_connection(sent: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        opened.append(writer)
        writer.write(sent)
        await asyncio.sleep(0.01)  # the server takes it: nothing that it does then can be waited for
        return reader, writer

    yield open_connection
    for writer in opened:
        writer.close()


async def _reply(reader: asyncio.StreamReader) -> bytes:
    """Return what was replied, nothing where the connection was closed instead."""
    async with asyncio.timeout(10):
        try:
            return (await reader.readuntil(b"\r\n\r\n"))[9:12]
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return b""


class Exhausted:
    """A listening socket of a process that has no file descriptor left, for some attempts."""

    def __init__(self, listening: socket.socket, attempts: int) -> None:
        self._listening, self.left = listening, attempts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._listening, name)

    def accept(self) -> Any:
        if self.left:
            self.left -= 1
            raise OSError(errno.EMFILE, "too many open files")
        return self._listening.accept()


async def test_connections_are_accepted_again_when_files_can_be_opened(
    server: BoundedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a pause each time: the loop does not run hot meanwhile."""
    pauses, loop = list[float](), asyncio.get_running_loop()
    call_later = loop.call_later

    def pause(delay: float, callback: Callable[..., object], *arguments: Any) -> asyncio.TimerHandle:
        if callback == server._resume:
            pauses.append(delay)
            delay = 0.0
        return call_later(delay, callback, *arguments)

    monkeypatch.setattr(loop, "call_later", pause)
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    exhausted: Any = Exhausted(listening, 3)
    server.listen_on(exhausted)
    reader, writer = await asyncio.open_connection(*listening.getsockname())
    writer.write(_ASK)
    assert await _reply(reader) == b"200"
    assert (pauses, exhausted.left) == ([1.0] * 3, 0)
    writer.close()


async def test_new_connection_takes_the_place_of_the_longest_idle(server: BoundedServer, connect: Connect) -> None:
    """Which said nothing, stopped in the midst of a request, or has its reply; who comes again has not been idle."""
    silent, _ = await connect()
    half, _ = await connect(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx")
    kept, writer = await connect(_ASK)
    assert await _reply(kept) == b"200"

    for gone in (silent, half):
        new, _ = await connect(_ASK)
        assert await _reply(new) == b"200"
        assert await _reply(gone) == b""
        await kept.read(3)
        writer.write(_ASK)
        assert await _reply(kept) == b"200"
    assert server.at_work == 0


async def test_what_is_worked_on_is_not_cut_off(
    server: BoundedServer, connect: Connect, released: asyncio.Event
) -> None:
    """Where all are, a new connection is closed; an answered one makes room again, though its reply is not read."""
    busy = [await connect(_WAIT) for _ in range(3)]
    assert server.at_work == 3
    one_more, _ = await connect(_ASK)
    assert await _reply(one_more) == b""

    released.set()
    assert [await _reply(reader) for reader, _ in busy] == [b"200"] * 3
    assert server.at_work == 0
    new, _ = await connect(_ASK)
    assert await _reply(new) == b"200"


async def test_flood_of_connections_is_counted_once(server: BoundedServer, connect: Connect) -> None:
    """However they end, closed by either side, the places are free again."""
    for number in range(20):
        _, writer = await connect(b"GET / HT")
        if number % 2:
            writer.close()
    last = [await connect(_ASK) for _ in range(3)]
    assert [await _reply(reader) for reader, _ in last] == [b"200"] * 3
    for _, writer in last:
        writer.close()
    async with asyncio.timeout(5):
        while server._open:  # noqa: ASYNC110  # what it waits for has no event
            await asyncio.sleep(0.01)
    assert (len(server._idle), len(server._evicted), server.at_work) == (0, 0, 0)


async def test_flood_of_requests_is_served_a_few_in_each_pass_of_the_loop() -> None:
    """In order of arrival; clients that have left are skipped, and the next flood is served too."""
    gate, entered = _Gate(4), list[int]()

    async def enter(number: int) -> None:
        await gate.enter()
        entered.append(number)

    for _flood in range(2):
        entered.clear()
        waiting = [asyncio.ensure_future(enter(number)) for number in range(40)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        most, before = 0, 0
        while len(entered) < 39:
            await asyncio.sleep(0)
            most, before = max(most, len(entered) - before), len(entered)
        assert most == 4
        assert entered == [0, *range(2, 40)]


async def test_requests_behind_each_other_end_with_their_connection(server: BoundedServer, connect: Connect) -> None:
    """What tornado has read already of a client that was closed is not served, and holds no place."""
    served = len(_SERVED)
    connections = [await connect(_ASK * 100) for _ in range(3)]
    for _, writer in connections:
        writer.transport.abort()
    async with asyncio.timeout(5):
        while server._connections:  # noqa: ASYNC110  # what it waits for has no event
            await asyncio.sleep(0.01)
    assert len(_SERVED) - served < 300
    assert (server._open, len(server._idle), len(server._evicted), server.at_work) == (0, 0, 0, 0)
