"""An HTTP endpoint for documents, in a thread: it stores them, and answers as a test says.

Knows sockets; must not know the documents.
"""

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self


class Received(NamedTuple):
    """One request, as it came; header names are in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float


class Listener:
    """Accepts POSTs at ``url``; ``answers`` are the statuses of the next replies (the last one is repeated).

    A status of 0 never answers, until the listener is closed; 3xx send the client to ``location``.
    """

    def __init__(self, *answers: int, location: str = "") -> None:
        self.received: list[Received] = []
        self.location = location
        self.closed = threading.Event()
        self._answers = list(answers) or [204]
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self.answer)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="listener")
        self._thread.start()

    def answer(self, request: Received) -> int:
        """Keep the request, and say what it is answered."""
        with self._lock:
            self.received.append(request)
            return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def answer_from_now_on(self, status: int) -> None:
        with self._lock:
            self._answers = [status]

    def close(self) -> None:
        self.closed.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        self._server.listener = self
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    listener: Listener

    def __init__(self, address: tuple[str, int], answer: Callable[[Received], int]) -> None:
        super().__init__(address, _Handler)
        self.answer = answer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status = self.server.answer(Received(self.path, headers, body, time.time()))
        if status == 0:
            self.server.listener.closed.wait(30)
            return
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", self.server.listener.location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *_: Any) -> None:
        """Log nothing: `Listener.received` has more."""
