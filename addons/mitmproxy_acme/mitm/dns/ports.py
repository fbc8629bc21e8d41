"""Serves the ports of mitmproxy's ``dns`` mode by sockets of our own, while there is a nameserver.

This module knows sockets, mitmproxy's servers and how much of a flood to accept; it must not know what is answered.
For each port that a stranger sends from mitmproxy makes a connection, six tasks, two log lines, and threads of its UDP
library: 20,000 queries in 10 s made 330 threads and held a handshake for 16 s (measured). A socket of the event loop
reads one datagram at a time between the loop's other work, and the kernel drops what is too much.
"""

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import mitmproxy_rs
from mitmproxy.options import Options
from mitmproxy.proxy import mode_servers
from mitmproxy.proxy.mode_specs import ProxyMode

from . import wire
from .flood_limits import FloodLog, ResponseRateLimit
from .flows import DnsClient, DnsFlows
from .nameserver import Answer, Nameserver

logger = logging.getLogger(__name__)

# Queries that wait for storage, and bytes of replies that wait for the kernel; further queries are dropped.
_MAX_WAITING, _MAX_UNSENT = 1_000, 256 * 1024
# TCP connections, and the seconds in which a client must send a query, and read the reply (RFC 7766 section 6.2.3).
_MAX_CONNECTIONS, _TIMEOUT = 256, 10.0
# mitmproxy's library closes its socket in a thread of its own.
_BIND_TRIES, _BIND_PAUSE = 100, 0.02

type Allows = Callable[[str], bool]


class DnsPorts:
    """Serves the ports of every ``dns`` mode. Use it from the event loop."""

    def __init__(self, allows: Allows, flows: DnsFlows) -> None:
        """``allows`` says whether a client with this address gets an answer at all."""
        self._allows = allows
        self._flows = flows
        self._nameserver: Nameserver | None = None
        self._lock = asyncio.Lock()
        self._rate_limit = ResponseRateLimit()
        self._flood_log = FloodLog()
        self._answering: set[asyncio.Task[None]] = set()
        self._connections: OrderedDict[asyncio.Task[Any], None] = (
            OrderedDict()
        )  # the one that is idle for longest is first

    def install(self) -> None:
        """Make the UDP ports that mitmproxy opens from now on ours from the start, so that no query is lost.

        Scripts load while the ports are opened. If ``run`` has replaced how mitmproxy opens UDP ports (only its first
        worker has any), nothing changes.
        """
        stock = mode_servers.AsyncioServerInstance.start_udp_based_server
        if stock.__module__ != mode_servers.__name__:
            return

        async def start(instance: mode_servers.DnsInstance, host: str, port: int) -> Any:
            if self._nameserver is None:
                return await stock(instance, host, port)
            return await self._listen_udp(host or "0.0.0.0", port, instance.mode)  # noqa: S104  # as mitmproxy does

        mode_servers.DnsInstance.start_udp_based_server = start  # type: ignore[method-assign, assignment]

    def uninstall(self) -> None:
        if "start_udp_based_server" in vars(mode_servers.DnsInstance):
            del mode_servers.DnsInstance.start_udp_based_server

    def use(self, nameserver: Nameserver | None) -> None:
        """Answer by this nameserver from now on."""
        self._nameserver = nameserver

    async def serve(self, servers: Iterable[object]) -> None:
        """Take over the ports of mitmproxy's servers of the ``dns`` mode; without a nameserver give them back.

        Logs an error if a port cannot be taken over.
        """
        async with self._lock:
            for server in list(servers):
                if isinstance(server, mode_servers.DnsInstance) and server.is_running:
                    await (self._take_over(server) if self._nameserver is not None else _give_back(server))

    async def _take_over(self, instance: mode_servers.DnsInstance) -> None:
        ours: list[Any] = []
        server: Any  # asyncio's, uvloop's, or of mitmproxy's own library
        for server in instance._servers:
            if isinstance(server, mitmproxy_rs.udp.UdpServer):
                ours += await self._take_udp(server, instance.mode)
            elif isinstance(server, _OwnServer):
                server.ports = self  # another one's, if the script was loaded again
                ours.append(server)
            elif not server.sockets:  # ``run`` has UDP in its first worker only
                ours.append(server)
            else:
                ours.append(await self._take_tcp(server, instance.mode))
        instance._servers = ours

    async def _take_udp(self, server: mitmproxy_rs.udp.UdpServer, mode: ProxyMode) -> list["_OwnServer"]:
        host, port = server.getsockname()[:2]
        server.close()
        await server.wait_closed()
        try:
            return [await self._listen_udp(host, port, mode)]
        except OSError as error:
            logger.error("DNS: UDP port %s of %s cannot be taken over from mitmproxy: %s", port, host, error)
            return []

    async def _listen_udp(self, host: str, port: int, mode: ProxyMode) -> "_OwnServer":
        """Raises ``OSError``."""
        bound = await _bind(host, port)
        ours, loop = _OwnServer(self, [bound]), asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: _DatagramProtocol(ours, mode), sock=bound)
        ours.listening.append(transport)
        return ours

    async def _take_tcp(self, server: Any, mode: ProxyMode) -> "_OwnServer":
        """Listen on the same sockets: no client is refused meanwhile, and other processes may share them."""
        sockets = [socket.socket(fileno=os.dup(listening.fileno())) for listening in server.sockets]
        server.close()
        ours = _OwnServer(self, sockets)

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # It is cancelled to make room for another; Python 3.12.1 logs a traceback for each (seen).
            with contextlib.suppress(asyncio.CancelledError):
                await ours.ports.serve_connection(reader, writer, mode)

        for own in sockets:
            ours.listening.append(await asyncio.start_server(connected, sock=own, limit=wire.MAX_SIZE))
        return ours

    # UDP

    def datagram(self, message: bytes, client: DnsClient, transport: Any) -> None:
        """Answer a datagram, or drop it if too many wait."""
        self._flood_log.count_message()
        if len(self._answering) >= _MAX_WAITING or transport.get_write_buffer_size() > _MAX_UNSENT:
            self._flood_log.count_dropped()
            return
        if not self._allows(client.address[0]):
            return
        answering = self._answer_datagram(message, client, transport)
        task = asyncio.get_running_loop().create_task(answering, name="acme dns")
        if not task.done():  # mitmproxy's tasks begin at once, and most end without waiting
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer_datagram(self, message: bytes, client: DnsClient, transport: Any) -> None:
        answer = await self._answer(message, udp=True)
        if answer is None or transport.is_closing():
            return
        reply = answer.reply
        # Over UDP the sender may be forged: only a limited number of replies may be longer than their query.
        if len(reply) > len(message) and not self._rate_limit.take(client.address[0]):
            reply = wire.truncated(message)
            self._flood_log.count_truncated()
        transport.sendto(reply, client.address)
        self._flows.show(message, answer, client)

    async def _answer(self, message: bytes, *, udp: bool) -> Answer | None:
        return await self._nameserver.answer(message, udp=udp) if self._nameserver is not None else None

    # TCP

    async def serve_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mode: ProxyMode
    ) -> None:
        """Answer until the client is idle, or sends something that is not a query."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # narrows: this is a coroutine
        while len(self._connections) >= _MAX_CONNECTIONS:
            idle, _ = self._connections.popitem(last=False)
            idle.cancel()
        self._connections[task] = None
        transport = writer.transport
        try:
            transport.set_write_buffer_limits(high=0)  # the client must read a reply before its next query is read
            client = DnsClient(transport.get_extra_info("peername"), transport.get_extra_info("sockname"), "tcp", mode)
            if self._allows(client.address[0]):
                await self._answer_queries(reader, writer, client, task)
        except (OSError, EOFError, TimeoutError):
            pass
        finally:
            self._connections.pop(task, None)
            transport.abort()

    async def _answer_queries(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: DnsClient, task: "asyncio.Task[Any]"
    ) -> None:
        """Answer message after message (RFC 1035 section 4.2.2), until one cannot be answered."""
        while True:
            async with asyncio.timeout(_TIMEOUT):
                length = int.from_bytes(await reader.readexactly(2))
                if not wire.MIN_SIZE <= length <= wire.MAX_SIZE:
                    return
                message = await reader.readexactly(length)
            self._flood_log.count_message()
            if task in self._connections:
                self._connections.move_to_end(task)
            answer = await self._answer(message, udp=False)
            if answer is None:
                return
            async with asyncio.timeout(_TIMEOUT):
                writer.write(len(answer.reply).to_bytes(2) + answer.reply)
                await writer.drain()
            self._flows.show(message, answer, client)


class _DatagramProtocol(asyncio.DatagramProtocol):
    """The protocol of one socket."""

    def __init__(self, server: "_OwnServer", mode: ProxyMode) -> None:
        self._server = server
        self._mode = mode

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._sockname = transport.get_extra_info("sockname")

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._server.ports.datagram(data, DnsClient(addr, self._sockname, "udp", self._mode), self._transport)


@dataclass
class _OwnServer:
    """Listening sockets of ``ports``, with the methods that mitmproxy calls on its servers."""

    ports: DnsPorts
    sockets: Sequence[socket.socket]
    listening: list[Any] = field(default_factory=list)

    def getsockname(self) -> Any:
        return self.sockets[0].getsockname()

    def close(self) -> None:
        for server in self.listening:
            server.close()


def allows(address: str, options: Options) -> bool:
    """Say whether mitmproxy's ``block_global`` and ``block_private`` allow a client with this address."""
    if not (options.block_global or options.block_private):
        return True
    ip = ipaddress.ip_address(address.partition("%")[0])
    if ip.is_loopback:
        return True
    return not (ip.is_private and options.block_private) and not (ip.is_global and options.block_global)


async def _bind(host: str, port: int) -> socket.socket:
    """Bind as soon as mitmproxy's socket is closed. Raises ``OSError`` if it stays open."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_DGRAM)
    bound.setblocking(False)
    if family == socket.AF_INET6:  # mitmproxy opens another socket for IPv4
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    for _ in range(_BIND_TRIES):
        try:
            bound.bind((host, port))
            return bound
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        await asyncio.sleep(_BIND_PAUSE)
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


async def _give_back(instance: mode_servers.DnsInstance) -> None:
    if any(isinstance(server, _OwnServer) for server in instance._servers):
        await instance.stop()
        await asyncio.sleep(_BIND_PAUSE)  # the event loop closes its sockets in a later iteration
        await instance.start()
