"""A TCP proxy that breaks connections on purpose. Knows sockets and threads; must not know what flows through.

Two threads per connection, all joined by `close`. Faults may be set and healed at any time, from any thread.
"""

import contextlib
import socket
import ssl
import struct
import threading
from typing import Self

from tests.servers.base import free_port

JUNK = (
    b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 52\r\nConnection: close\r\n\r\n"
    b"<html><body><h1>502 Bad Gateway</h1></body></html>\r\n"
)


class Chaos:
    """Forwards 127.0.0.1:`port` to 127.0.0.1:`upstream`, and injects faults.

    `tls` is only for `answer_junk`: with a server's context the junk comes after a proper handshake, as from a load
    balancer before a dead CA; without it the junk is plain.
    """

    def __init__(self, upstream: int, *, tls: ssl.SSLContext | None = None) -> None:
        self.port = free_port()
        self.upstream = upstream
        self.connections = 0  # accepted so far
        self.bytes = 0  # passed so far, both ways
        self.latency = 0.0
        self.cut: int | None = None
        self.junk: bytes | None = None
        self.flowing = threading.Event()
        self.flowing.set()
        self._tls = tls
        self._lock = threading.Lock()
        self._open: set[_Connection] = set()
        self._listener: _Listener | None = _Listener(self)

    def delay(self, seconds: float) -> None:
        """Every chunk of bytes, in both directions, arrives this much later."""
        self.latency = seconds

    def blackhole(self) -> None:
        """Connections are accepted and stay open; nothing arrives any more."""
        self.flowing.clear()

    def cut_after(self, count: int) -> None:
        """Each connection is reset when `count` bytes have gone through in one of its directions."""
        self.cut = count

    def answer_junk(self, junk: bytes = JUNK) -> None:
        """New connections get an HTML error page, whatever they ask; the upstream is not asked."""
        self.junk = junk

    def reset(self) -> None:
        """RST on every open connection, those included that the kernel accepted a moment ago."""
        while self._listener and self._listener.accept():
            pass
        for connection in self._snapshot():
            connection.reset()

    def refuse(self) -> None:
        """Nothing listens any more: ECONNREFUSED for new connections, RST for the open ones."""
        if self._listener:
            self._listener.close()
            self._listener = None
        self.reset()

    def heal(self) -> None:
        """Undo all faults. What `blackhole` held back is forwarded."""
        self.latency, self.cut, self.junk = 0.0, None, None
        self.flowing.set()
        self._listener = self._listener or _Listener(self)

    def close(self) -> None:
        """Refuse and reset, and wait until every thread is gone."""
        self.refuse()
        for connection in self._snapshot():
            connection.join()

    def accept(self, client: socket.socket) -> None:
        """For the listener: a client came."""
        connection = _Connection(self, client, self._tls)
        with self._lock:
            self.connections += 1
            self._open.add(connection)
        connection.start()

    def passed(self, count: int) -> None:
        """For a connection: bytes went through."""
        with self._lock:
            self.bytes += count

    def ended(self, connection: "_Connection") -> None:
        """For a connection: it is over."""
        with self._lock:
            self._open.discard(connection)

    def _snapshot(self) -> list["_Connection"]:
        with self._lock:
            return list(self._open)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Listener(threading.Thread):
    def __init__(self, chaos: Chaos) -> None:
        super().__init__(name=f"chaos-{chaos.port}")
        self._chaos = chaos
        self._closing = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", chaos.port), backlog=256)
        self._socket.settimeout(0.05)  # close() is noticed this soon: no portable way wakes an accept()
        self.start()

    def run(self) -> None:
        with self._socket:
            while not self._closing.is_set():
                self.accept()

    def accept(self) -> bool:
        """Take one connection if there is one soon; from any thread."""
        try:
            client, _ = self._socket.accept()
        except TimeoutError:
            return False
        client.setblocking(True)
        self._chaos.accept(client)
        return True

    def close(self) -> None:
        self._closing.set()
        self.join()


class _Connection(threading.Thread):
    def __init__(self, chaos: Chaos, client: socket.socket, tls: ssl.SSLContext | None) -> None:
        super().__init__(name=f"chaos-{chaos.port}-connection")
        self._chaos, self._client, self._tls = chaos, client, tls
        self._upstream: socket.socket | None = None
        self._over = threading.Event()

    def run(self) -> None:
        try:
            if self._chaos.junk is not None:
                self._answer(self._chaos.junk)
            else:
                self._forward()
        except OSError:
            self.reset()
        finally:
            self._client.close()
            if self._upstream:
                self._upstream.close()
            self._chaos.ended(self)

    def _answer(self, junk: bytes) -> None:
        self._client.settimeout(5)
        if self._tls:
            self._client = self._tls.wrap_socket(self._client, server_side=True)
        self._client.recv(65536)  # a reply before the request would be a reset for some clients
        self._client.sendall(junk)
        self._client.shutdown(socket.SHUT_WR)
        self._client.recv(65536)  # until the client has read it and hangs up

    def _forward(self) -> None:
        self._upstream = upstream = socket.create_connection(("127.0.0.1", self._chaos.upstream), 5)
        for end in (self._client, upstream):
            end.settimeout(0.2)  # a thread that waits to send to a frozen server notices a reset this soon
        requests = threading.Thread(target=self._pump, args=(self._client, upstream), name=f"{self.name}-up")
        requests.start()
        self._pump(upstream, self._client)
        requests.join()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        total = 0
        try:
            while chunk := self._receive(source):
                self._hold()
                cut = self._chaos.cut
                chunk = chunk if cut is None else chunk[: max(cut - total, 0)]
                self._send(target, chunk)
                total += len(chunk)
                if cut is not None and total >= cut:
                    return self.reset()
            if not self._over.is_set():  # a reset must not begin with a polite end
                target.shutdown(socket.SHUT_WR)
        except OSError:
            self.reset()

    def _receive(self, source: socket.socket) -> bytes:
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                return source.recv(65536)
        return b""

    def _hold(self) -> None:
        while not self._chaos.flowing.wait(0.05):
            if self._over.is_set():
                return
        self._over.wait(self._chaos.latency)

    def _send(self, target: socket.socket, chunk: bytes) -> None:
        while chunk and not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                count = target.send(chunk)
                self._chaos.passed(count)
                chunk = chunk[count:]

    def reset(self) -> None:
        """RST both ends as soon as their threads let go of them; SHUT_RD wakes those, and sends nothing itself."""
        self._over.set()
        for end in (self._client, self._upstream):
            if end:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.shutdown(socket.SHUT_RD)
