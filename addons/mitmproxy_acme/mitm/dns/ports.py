"""The ports of mitmproxy's ``dns`` mode, served by sockets of ours while a nameserver of ours answers there.

This module knows sockets, mitmproxy's servers and how much of a flood to take; it must not know what is answered.
mitmproxy makes a connection, six tasks, two log lines and threads of its UDP library for each port that a stranger
sends from: 20,000 questions in 10 s made 330 threads and held a handshake for 16 s (measured). A socket of the event
loop takes one datagram at a time between the loop's other work, and the kernel drops what is too much.
"""

import asyncio
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
from .flows import DnsFlows, Sender
from .nameserver import Answer, Nameserver
from .rates import FloodTally, Rates

logger = logging.getLogger(__name__)

# Replies that wait for storage, and bytes of replies that wait for the kernel; what comes beyond is dropped.
_UNDER_WAY, _UNSENT = 1_000, 256 * 1024
# Connections over TCP, and the seconds in which a message must have come, and its reply been taken (RFC 7766 6.2.3).
_CONNECTIONS, _PATIENCE = 256, 10.0
# Mitmproxy's library closes its socket in a thread of its own.
_BIND_TRIES, _BIND_PAUSE = 100, 0.02

type Allows = Callable[[str], bool]


class DnsPorts:
    """Serves the ports of every ``dns`` mode. Use it from the event loop."""

    def __init__(self, allows: Allows, flows: DnsFlows) -> None:
        """``allows`` says whether a client of an address is to be answered at all."""
        self._allows = allows
        self._flows = flows
        self._nameserver: Nameserver | None = None
        self._turn = asyncio.Lock()
        self._rates = Rates()
        self._tally = FloodTally()
        self._answering: set[asyncio.Task[None]] = set()
        self._connections: OrderedDict[asyncio.Task[Any], None] = OrderedDict()  # who was silent for longest is first

    def install(self) -> None:
        """Have the UDP ports that mitmproxy opens from now on be ours from the start: no question is lost.

        Scripts load while the ports are opened. Where UDP is not mitmproxy's own (``run`` has it in its first worker
        only) it is left alone.
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
        """Answer by this one from now on."""
        self._nameserver = nameserver

    async def serve(self, servers: Iterable[object]) -> None:
        """Take the ports of those of mitmproxy's servers that are of the ``dns`` mode; without a nameserver give them
        back. Logs an error where one cannot be taken."""
        async with self._turn:
            for server in list(servers):
                if isinstance(server, mode_servers.DnsInstance) and server.is_running:
                    await (self._take(server) if self._nameserver is not None else _give_back(server))

    async def _take(self, instance: mode_servers.DnsInstance) -> None:
        ours: list[Any] = []
        server: Any  # asyncio's, uvloop's, or of mitmproxy's own library
        for server in instance._servers:
            if isinstance(server, mitmproxy_rs.udp.UdpServer):
                ours += await self._take_udp(server, instance.mode)
            elif isinstance(server, _Ours):
                server.ports = self  # it was another one's where a script is loaded again
                ours.append(server)
            elif not server.sockets:  # ``run`` has UDP in its first worker only
                ours.append(server)
            else:
                ours.append(await self._take_tcp(server, instance.mode))
        instance._servers = ours

    async def _take_udp(self, server: mitmproxy_rs.udp.UdpServer, mode: ProxyMode) -> list["_Ours"]:
        host, port = server.getsockname()[:2]
        server.close()
        await server.wait_closed()
        try:
            return [await self._listen_udp(host, port, mode)]
        except OSError as error:
            logger.error("DNS: UDP port %s of %s cannot be taken over from mitmproxy: %s", port, host, error)
            return []

    async def _listen_udp(self, host: str, port: int, mode: ProxyMode) -> "_Ours":
        """Raises ``OSError``."""
        bound = await _bind(host, port)
        ours, loop = _Ours(self, [bound]), asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(ours, mode), sock=bound)
        ours.listening.append(transport)
        return ours

    async def _take_tcp(self, server: Any, mode: ProxyMode) -> "_Ours":
        """Listen on the same sockets: no client is refused meanwhile, and they may be shared with other processes."""
        sockets = [socket.socket(fileno=os.dup(listening.fileno())) for listening in server.sockets]
        server.close()
        ours = _Ours(self, sockets)

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await ours.ports.serve_connection(reader, writer, mode)

        for own in sockets:
            ours.listening.append(await asyncio.start_server(connected, sock=own, limit=wire.LONGEST))
        return ours

    # UDP

    def datagram(self, message: bytes, asker: Sender, transport: Any) -> None:
        """Answer, unless that is too much to do now."""
        self._tally.message()
        if len(self._answering) >= _UNDER_WAY or transport.get_write_buffer_size() > _UNSENT:
            self._tally.dropped()
            return
        if not self._allows(asker.address[0]):
            return
        task = asyncio.get_running_loop().create_task(self._answer_datagram(message, asker, transport), name="acme dns")
        if not task.done():  # mitmproxy's tasks begin at once, and most end without having waited
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer_datagram(self, message: bytes, asker: Sender, transport: Any) -> None:
        answer = await self._answer(message, udp=True)
        if answer is None or transport.is_closing():
            return
        reply = answer.reply
        # Over UDP anybody can be named as the sender: an answer is longer than its question only now and then.
        if len(reply) > len(message) and not self._rates.take(asker.address[0]):
            reply = wire.truncated(message)
            self._tally.truncated()
        transport.sendto(reply, asker.address)
        self._flows.show(message, answer, asker)

    async def _answer(self, message: bytes, *, udp: bool) -> Answer | None:
        return await self._nameserver.answer(message, udp=udp) if self._nameserver is not None else None

    # TCP

    async def serve_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mode: ProxyMode
    ) -> None:
        """Answer until the client is silent, or says what is no question."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # narrows: this is a coroutine
        while len(self._connections) >= _CONNECTIONS:
            silent, _ = self._connections.popitem(last=False)
            silent.cancel()
        self._connections[task] = None
        transport = writer.transport
        try:
            transport.set_write_buffer_limits(high=0)  # a reply is taken before the next question is read
            asker = Sender(transport.get_extra_info("peername"), transport.get_extra_info("sockname"), "tcp", mode)
            if self._allows(asker.address[0]):
                await self._converse(reader, writer, asker, task)
        except (OSError, EOFError, TimeoutError):
            pass
        finally:
            self._connections.pop(task, None)
            transport.abort()

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asker: Sender, task: "asyncio.Task[Any]"
    ) -> None:
        """Answer message after message (RFC 1035 section 4.2.2), until one is none that can be answered."""
        while True:
            async with asyncio.timeout(_PATIENCE):
                length = int.from_bytes(await reader.readexactly(2))
                if not wire.SHORTEST <= length <= wire.LONGEST:
                    return
                message = await reader.readexactly(length)
            self._tally.message()
            if task in self._connections:
                self._connections.move_to_end(task)
            answer = await self._answer(message, udp=False)
            if answer is None:
                return
            async with asyncio.timeout(_PATIENCE):
                writer.write(len(answer.reply).to_bytes(2) + answer.reply)
                await writer.drain()
            self._flows.show(message, answer, asker)


class _Datagrams(asyncio.DatagramProtocol):
    """One socket."""

    def __init__(self, ours: "_Ours", mode: ProxyMode) -> None:
        self._ours = ours
        self._mode = mode

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._sockname = transport.get_extra_info("sockname")

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self._ours.ports.datagram(data, Sender(addr, self._sockname, "udp", self._mode), self._transport)


@dataclass
class _Ours:
    """Listening sockets of ``ports``, with what mitmproxy asks of its servers."""

    ports: DnsPorts
    sockets: Sequence[socket.socket]
    listening: list[Any] = field(default_factory=list)

    def getsockname(self) -> Any:
        return self.sockets[0].getsockname()

    def close(self) -> None:
        for server in self.listening:
            server.close()


def allows(address: str, options: Options) -> bool:
    """Say whether mitmproxy's ``block_global`` and ``block_private`` let a client of an address in."""
    if not (options.block_global or options.block_private):
        return True
    ip = ipaddress.ip_address(address.partition("%")[0])
    if ip.is_loopback:
        return True
    return not (ip.is_private and options.block_private) and not (ip.is_global and options.block_global)


async def _bind(host: str, port: int) -> socket.socket:
    """Bind as soon as mitmproxy's socket is closed. Raises ``OSError``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_DGRAM)
    bound.setblocking(False)
    if family == socket.AF_INET6:  # mitmproxy has another socket for IPv4
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
    if any(isinstance(server, _Ours) for server in instance._servers):
        await instance.stop()
        await asyncio.sleep(_BIND_PAUSE)  # the loop closes what it has in a later turn
        await instance.start()
