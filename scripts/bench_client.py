"""Clients for scripts/bench: one handshake, a crowd of them, and what a process paid for it.

Knows TLS 1.3 and /proc; must not know who is measured. Every handshake is a full one on a new connection.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

LOOPBACK = "127.0.0.1"


class Visit(NamedTuple):
    """One client's handshake, from the TCP connection to its end, good or bad."""

    milliseconds: float
    trusted: bool


class Client:
    """Trusts `root` (PEM text) and nothing else; speaks TLS 1.3 only."""

    def __init__(self, root: str) -> None:
        self._context = ssl.create_default_context(cadata=root)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3

    def visit(self, port: int, name: str, timeout: float = 200) -> Visit:
        """One handshake, blocking."""
        started = time.perf_counter()
        try:
            with socket.create_connection((LOOPBACK, port), timeout) as plain:
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._context.wrap_socket(plain, server_hostname=name):
                    return Visit(_since(started), True)
        except OSError:
            return Visit(_since(started), False)

    async def come(self, port: int, name: str, timeout: float = 200) -> Visit:
        """One handshake, as one of many clients on an event loop."""
        started = time.perf_counter()
        try:
            _, writer = await asyncio.open_connection(
                LOOPBACK, port, ssl=self._context, server_hostname=name, ssl_handshake_timeout=timeout
            )
        except OSError:
            return Visit(_since(started), False)
        visit = Visit(_since(started), True)
        writer.transport.abort()
        return visit

    async def crowd(self, port: int, names: Sequence[str]) -> list[Visit]:
        """One handshake for each of `names`, all at once."""
        return await asyncio.gather(*(self.come(port, name) for name in names))

    async def all_served(self, port: int, names: Sequence[str], at_once: int = 8) -> None:
        """Return when every name has had a trusted handshake; a name without one is tried again a little later."""
        turns = asyncio.Semaphore(at_once)

        async def until_trusted(name: str) -> None:
            while True:
                async with turns:
                    if (await self.come(port, name)).trusted:
                        return
                await asyncio.sleep(0.1)

        await asyncio.gather(*(until_trusted(name) for name in names))


def _since(started: float) -> float:
    return (time.perf_counter() - started) * 1000


def cpu_ms(pid: int) -> float:
    """Milliseconds of CPU that the living threads of a process have had so far (/proc/PID/task/TID/schedstat)."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except OSError:  # a thread that ended meanwhile
            continue
    return total / 1e6


def settled_cpu_ms(pid: int) -> float:
    """The same, once the process has finished what the last clients left it to do."""
    before = cpu_ms(pid)
    for _ in range(25):
        time.sleep(0.02)
        now = cpu_ms(pid)
        if now - before < 0.3:
            return now
        before = now
    return before


def resident_mb(pid: int) -> float:
    """Megabytes of memory that a process holds (/proc/PID/status, VmRSS)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024
