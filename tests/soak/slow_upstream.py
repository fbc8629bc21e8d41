"""The web server behind the nodes: it greets at once, or sends a body that takes as long as its path says.

Knows sockets; must not know ACME.
"""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

CHUNK_EVERY = 0.25
"""Seconds between two chunks of a stream."""


def body_of(chunks: int) -> bytes:
    """Return the whole body of a stream."""
    return b"".join(_chunk(number) for number in range(chunks))


def _chunk(number: int) -> bytes:
    return b"chunk %08d\n" % number


class SlowUpstream:
    """``/stream/N`` is N chunks, one every ``CHUNK_EVERY`` seconds; every other path is ``hello``."""

    def __init__(self) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="upstream")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A node that was killed hangs up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        _, _, count = self.path.rpartition("/stream/")
        body = body_of(int(count)) if count.isdigit() else b"hello\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not count.isdigit():
            self.wfile.write(body)
            return
        for number in range(int(count)):
            self.wfile.write(_chunk(number))
            self.wfile.flush()
            time.sleep(CHUNK_EVERY)

    def log_message(self, *_: Any) -> None:
        """Log nothing: the clients count."""
