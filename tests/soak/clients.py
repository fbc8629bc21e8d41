"""Clients: handshakes without a pause, and downloads that outlast renewals; each trusts the CA's root and nothing else.

Knows TLS and HTTP; must not know which failure has an excuse.
"""

import functools
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence

from tests.soak.faults import NODES
from tests.soak.journal import EXPIRED, FOREIGN, REFUSED, SILENT, Journal, Stream
from tests.soak.slow_upstream import CHUNK_EVERY, body_of

# Seconds. Longer than a node holds a handshake (15), and than a pause.
_PATIENCE = 20.0
_READ_PATIENCE = 30.0
_X509_HAS_EXPIRED = 10
_BETWEEN_VISITS = (0.02, 0.2)
_BETWEEN_NEW_NAMES = (1.0, 3.0)
_THREADS_FOR_EACH = 2


class Clients:
    """Threads that visit ``ports``, one of each node, until they are stopped. ``roots`` gives the PEM to trust now."""

    def __init__(
        self,
        journal: Journal,
        ports: Sequence[int],
        names: Sequence[str],
        roots: Callable[[], str],
        seed: int,
        stream_seconds: float,
    ) -> None:
        self._journal = journal
        self._ports = ports
        self._names = names
        self._roots = roots
        self._seed = seed
        self._chunks = round(stream_seconds / CHUNK_EVERY)
        self._stopping = threading.Event()
        works: list[Callable[[], None]] = [self._visit_new_names]
        for node in range(NODES):
            works += [functools.partial(self._visit, node, number) for number in range(_THREADS_FOR_EACH)]
            works += [functools.partial(self._stream, node)]
        self._threads = [threading.Thread(target=work, name="soak client") for work in works]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Return when the last handshakes have ended; downloads are broken off."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def visit(self, node: int, name: str) -> bool:
        """Do one handshake and note its end; say whether a trusted certificate came."""
        begun, roots = time.time(), self._roots()
        try:
            not_after = self._handshake(node, name, roots)
        except ssl.SSLCertVerificationError as error:
            if roots != self._roots():  # the CA has another root since this began
                return self.visit(node, name)
            outcome = EXPIRED if error.verify_code == _X509_HAS_EXPIRED else FOREIGN
            detail = error.verify_message
        except TimeoutError:
            outcome, detail = SILENT, f"nothing for {_PATIENCE:.0f} s"
        except OSError as error:
            outcome, detail = REFUSED, getattr(error, "reason", None) or type(error).__name__
        else:
            self._journal.serve(node, name, begun, not_after)
            return True
        self._journal.fail(node, name, begun, time.time(), outcome, detail)
        return False

    def _handshake(self, node: int, name: str, roots: str) -> float:
        """Return when the certificate ends."""
        with (
            socket.create_connection(("127.0.0.1", self._ports[node]), _PATIENCE) as plain,
            _trusting(roots).wrap_socket(plain, server_hostname=name) as secure,
        ):
            shown = secure.getpeercert()
            assert shown
            return float(ssl.cert_time_to_seconds(str(shown["notAfter"])))

    def _visit(self, node: int, number: int) -> None:
        source = random.Random(f"{self._seed} visits {node} {number}")
        while not self._stopping.is_set():
            self.visit(node, source.choice(self._names))
            self._stopping.wait(source.uniform(*_BETWEEN_VISITS))

    def _visit_new_names(self) -> None:
        """A name that was never asked for, at one node; then at the others."""
        source, number = random.Random(f"{self._seed} new names"), 0
        while not self._stopping.wait(source.uniform(*_BETWEEN_NEW_NAMES)):
            number += 1
            for node in source.sample(range(NODES), NODES):
                self.visit(node, f"new{number}.soak.test")

    def _stream(self, node: int) -> None:
        source = random.Random(f"{self._seed} streams {node}")
        while not self._stopping.is_set():
            begun = time.time()
            try:
                trouble = self._download(node, source.choice(self._names))
            except OSError as error:
                trouble = f"{type(error).__name__}: {error}"
            if trouble is not None:
                self._journal.end_stream(Stream(node, begun, time.time(), trouble))
            self._stopping.wait(0.5)

    def _download(self, node: int, name: str) -> str | None:
        """Return what is wrong with the body, or nothing.

        None where no stream began, which is a handshake's matter, and where it is broken off.
        """
        received, request = b"", f"GET /stream/{self._chunks} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"
        try:
            plain = socket.create_connection(("127.0.0.1", self._ports[node]), _READ_PATIENCE)
            secure = _trusting(self._roots()).wrap_socket(plain, server_hostname=name)
        except OSError:
            return None
        with secure:
            secure.sendall(request.encode())
            while chunk := secure.recv(65_536):
                received += chunk
                if self._stopping.is_set():
                    return None
        body = received.partition(b"\r\n\r\n")[2]
        return "" if body == body_of(self._chunks) else f"{len(body)} of {len(body_of(self._chunks))} bytes came"


@functools.lru_cache(4)
def _trusting(roots: str) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=roots)
