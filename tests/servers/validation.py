"""Stands where a CA validates http-01, and lets it wait. Knows sockets; must not know any CA or client."""

import contextlib
import queue
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Self


class Validation:
    """Accepts validations at ``port``: shows the requested paths, and answers when a test says so.

    ``Pebble(http_port=validation.port)`` then waits in the middle of an order for as long as a test wants.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.paths: queue.Queue[str] = queue.Queue()
        self._body: bytes = b""
        self._answered = threading.Event()
        self._thread = threading.Thread(target=self._run, name="validation")
        self._thread.start()

    def answer(self, body: bytes) -> None:
        """Let every validation, those that wait included, find this."""
        self._body = body
        self._answered.set()

    def close(self) -> None:
        """Answer what waits with nothing, and stop."""
        self._answered.set()
        with contextlib.suppress(OSError):  # closed before
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _run(self) -> None:
        with ThreadPoolExecutor(8) as pool:
            while True:
                try:
                    validator, _ = self._listener.accept()
                except OSError:
                    return
                pool.submit(self._validate, validator)

    def _validate(self, validator: socket.socket) -> None:
        with validator:
            self.paths.put(validator.recv(65_536).split()[1].decode())
            self._answered.wait(20)
            validator.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(self._body), self._body))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
