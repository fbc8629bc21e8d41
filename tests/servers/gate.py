"""A CA's front door: it can hold back one request, or answer in the CA's place.

Knows HTTP and TLS; must not know ACME.
"""

import http.client
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.servers.base import free_port
from tests.servers.ca import ThrowawayCA
from tests.servers.pebble import Pebble


class Asked(NamedTuple):
    """A request that came: its path, and when (``time.monotonic``)."""

    path: str
    at: float


class Gate:
    """Passes HTTPS on to a Pebble, as ``directory``, whose certificate ``ca_bundle`` trusts.

    After ``hold(n)`` the n-th request still reaches the CA, and its reply does not come back: ``held`` is set then.
    ``asked`` is what came, in order.
    """

    def __init__(self, pebble: Pebble, folder: Path) -> None:
        self._pebble = pebble
        self._lock = threading.Lock()
        self._left = 0
        self._answers: dict[str, tuple[int, Mapping[str, str], bytes]] = {}
        self._changes: dict[str, tuple[bytes, bytes]] = {}
        self._alterations: dict[str, tuple[Callable[[bytes], bytes], bool]] = {}
        self.held = threading.Event()
        self.asked: list[Asked] = []
        ca = ThrowawayCA(folder)
        self.ca_bundle = ca.bundle
        context = ca.server_context()
        self._server = _Server(("127.0.0.1", free_port()), self)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.directory = f"https://localhost:{self._server.server_port}/dir"
        self._serving = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="gate")

    def hold(self, number: int) -> None:
        """Let no reply through from the ``number``-th request on that comes from now on (1 is the next)."""
        with self._lock:
            self._left = number
            self.held.clear()

    def answer(self, path: str, status: int, body: bytes = b"", **headers: str) -> None:
        """From now on, answer requests whose path begins so, in the CA's place; ``_`` is a hyphen."""
        with self._lock:
            self._answers[path] = status, {name.replace("_", "-"): value for name, value in headers.items()}, body

    def change(self, path: str, old: bytes, new: bytes) -> None:
        """Say ``new`` for ``old`` in what the CA answers from now on to a request whose path begins so."""
        with self._lock:
            self._changes[path] = old, new

    def alter(self, path: str, change: Callable[[bytes], bytes], *, length: bool = True) -> None:
        """Answer what ``change`` makes of the CA's replies from now on, where the path begins so; one is kept a path.

        ``length`` says that the reply has a Content-Length, that of the CA's whole one; else it ends with the
        connection.
        """
        with self._lock:
            self._alterations[path] = change, length

    def open(self) -> None:
        """Let everything through that comes from now on."""
        with self._lock:
            self._left = 0
            self._answers.clear()
            self._changes.clear()
            self._alterations.clear()

    def altered(self, path: str, body: bytes) -> tuple[bytes, int | None]:
        """For a request: return the part of the reply to send, and its Content-Length, if it has one."""
        with self._lock:
            found = next((what for begin, what in self._alterations.items() if path.startswith(begin)), None)
        if found is None:
            return body, len(body)
        change, length = found
        sent = change(body)
        return sent, max(len(body), len(sent)) if length else None

    def paths(self) -> list[str]:
        """Return what was asked for so far."""
        return [asked.path for asked in self.asked]

    def passes(self) -> bool:
        """For a request: count it, and say whether its reply comes back."""
        with self._lock:
            if self._left == 0:
                return True
            if self._left > 1:
                self._left -= 1
                return True
        return False

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any, bytes]:
        """For a request: what the CA answers. It makes its URLs from the Host header, so that they lead here."""
        with self._lock:
            self.asked.append(Asked(path, time.monotonic()))
            for begin, answer in self._answers.items():
                if path.startswith(begin):
                    return answer
        connection = http.client.HTTPSConnection("localhost", self._pebble.port, context=self._pebble.context)
        try:
            connection.request(method, path, body or None, headers)
            reply = connection.getresponse()
            return reply.status, reply.headers, self._changed(path, reply.read())
        finally:
            connection.close()

    def _changed(self, path: str, body: bytes) -> bytes:
        with self._lock:
            for begin, (old, new) in self._changes.items():
                body = body.replace(old, new) if path.startswith(begin) else body
        return body

    def __enter__(self) -> Self:
        self._serving.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._serving.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a held request ends with its client, or with us

    def __init__(self, address: tuple[str, int], gate: Gate) -> None:
        super().__init__(address, _Request)
        self.gate = gate

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is what the gate is for."""


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        gate = self.server.gate
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        passes = gate.passes()
        status, headers, reply = gate.forward(self.command, self.path, dict(self.headers), body)
        if not passes:
            gate.held.set()
            self.connection.settimeout(60)
            self.rfile.read(1)  # until the client is gone
            self.close_connection = True
            return
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        reply, length = gate.altered(self.path, reply)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply)
            self.close_connection = length != len(reply)

    do_HEAD = do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Be quiet."""
