"""A client that trusts nothing but the root it is given, and tells what it was served."""

import socket
import ssl
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cryptography import x509


@dataclass(frozen=True)
class Served:
    """What one handshake gave: the leaf, and the milliseconds from connect to trusted."""

    leaf: x509.Certificate
    milliseconds: float
    alpn: str | None
    version: str | None

    @property
    def names(self) -> list[str]:
        extension = self.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return extension.value.get_values_for_type(x509.DNSName)


def handshake(
    port: int,
    name: str | None,
    root: str,
    *,
    timeout: float = 30,
    alpn: Sequence[str] = (),
    check_hostname: bool = True,
) -> Served:
    """Connect to 127.0.0.1, asking for ``name``; raises ``ssl.SSLError`` unless the certificate is trusted."""
    context = ssl.create_default_context(cadata=root)
    context.check_hostname = check_hostname
    if alpn:
        context.set_alpn_protocols(list(alpn))
    begun = time.perf_counter()
    with (
        socket.create_connection(("127.0.0.1", port), timeout) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        milliseconds = (time.perf_counter() - begun) * 1000
        leaf = x509.load_der_x509_certificate(secure.getpeercert(binary_form=True) or b"")
        return Served(leaf, milliseconds, secure.selected_alpn_protocol(), secure.version())


def handshakes(port: int, names: Sequence[str], root: str, *, timeout: float = 60) -> list[Served]:
    """Do one handshake for each name, all at once; raises the first error."""
    with ThreadPoolExecutor(len(names)) as pool:
        return list(pool.map(lambda name: handshake(port, name, root, timeout=timeout), names))


def untrusted(port: int, name: str | None, *, timeout: float = 30) -> x509.Certificate:
    """Return whatever certificate is served, trusted or not; raises ``OSError`` where none is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        return x509.load_der_x509_certificate(secure.getpeercert(binary_form=True) or b"")


def get(port: int, name: str, root: str, path: str = "/", *, timeout: float = 30) -> str:
    """Fetch ``https://name/path`` over HTTP/1.1, and return the whole reply."""
    context = ssl.create_default_context(cadata=root)
    with (
        socket.create_connection(("127.0.0.1", port), timeout) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        secure.sendall(f"GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
        chunks = []
        while chunk := secure.recv(65_536):
            chunks.append(chunk)
        return b"".join(chunks).decode()
