"""The way by which the CA reaches the nodes: a port whose requests go to the first node that answers.

Knows HTTP; must not know ACME.
"""

import contextlib
import http.client
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.servers.base import fetch

# A node that is paused accepts connections, and answers nothing.
_PATIENCE = 1.0
_OK = 200


class Balancer:
    """Passes each GET at ``port`` on to 127.0.0.1, at the first of ``ports`` that answers 200."""

    def __init__(self, port: int, ports: Sequence[int]) -> None:
        self._server = _Server(("127.0.0.1", port), ports)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="balancer")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    def __init__(self, address: tuple[str, int], ports: Sequence[int]) -> None:
        super().__init__(address, _Handler)
        self.ports = ports

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A CA that hung up is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        body = self._fetch()
        self.send_response(502 if body is None else _OK)
        body = body or b""
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _fetch(self) -> bytes | None:
        for port in self.server.ports:
            with contextlib.suppress(OSError, http.client.HTTPException):
                reply = fetch(f"http://127.0.0.1:{port}{self.path}", timeout=_PATIENCE, host=self.headers["Host"])
                if reply.status == _OK:
                    return reply.body
        return None

    def log_message(self, *_: Any) -> None:
        """Log nothing: the nodes do."""
