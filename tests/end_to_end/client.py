"""A client that trusts nothing but the root it is given, and tells what it was served."""

import datetime
import json
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto

UNRECOGNIZED_NAME, HANDSHAKE_FAILURE = "TLSV1_UNRECOGNIZED_NAME", "SSLV3_ALERT_HANDSHAKE_FAILURE"
"""What ``alert_for`` returns for a name that no option allows, and for one that gets no certificate."""


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

    @property
    def addresses(self) -> list[str]:
        extension = self.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return [str(address) for address in extension.value.get_values_for_type(x509.IPAddress)]


def handshake(
    port: int,
    name: str | None,
    root: str,
    *,
    timeout: float = 30,
    alpn: Sequence[str] = (),
    check_hostname: bool = True,
    address: str = "127.0.0.1",
) -> Served:
    """Connect to ``address``, asking for ``name``; raises ``ssl.SSLError`` unless the certificate is trusted.

    Where the name is an address the client sends none (RFC 6066 section 3), and looks for that in the certificate.
    """
    context = ssl.create_default_context(cadata=root)
    context.check_hostname = check_hostname
    if alpn:
        context.set_alpn_protocols(list(alpn))
    begun = time.perf_counter()
    with (
        socket.create_connection((address, port), timeout) as plain,
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


def alert_for(port: int, name: str | None, *, timeout: float = 30) -> str | None:
    """Return what Python calls the alert that ends a handshake for ``name``; None where there is a certificate."""
    try:
        untrusted(port, name, timeout=timeout)
    except ssl.SSLError as error:
        return error.reason
    return None


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


def is_trusted(port: int, name: str, root: str, *, timeout: float = 30) -> bool:
    """Say whether a handshake for ``name`` succeeds with ``root`` as the only trust; a refused name is not trusted."""
    try:
        handshake(port, name, root, timeout=timeout)
    except ssl.SSLCertVerificationError:
        return False
    except ssl.SSLError as error:
        if error.reason not in (UNRECOGNIZED_NAME, HANDSHAKE_FAILURE):
            raise
        return False
    return True


def eventually(condition: Callable[[], object], *, timeout: float = 10) -> None:
    """Return as soon as ``condition`` holds; fails after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not in {timeout} s"
        time.sleep(0.05)


def end_of(process: subprocess.Popen[str], *, timeout: float = 30) -> tuple[str, str]:
    """Return what a process that was read line by line still says on stdout and stderr, once it has ended.

    ``Popen.communicate`` reads the descriptors, and so loses the lines that a ``readline`` took into the buffer.
    """
    assert process.stdout
    assert process.stderr
    late = threading.Timer(timeout, process.kill)
    late.start()
    try:
        with ThreadPoolExecutor(2) as pool:
            out, err = pool.map(lambda stream: stream.read(), (process.stdout, process.stderr))
        process.wait()
    finally:
        late.cancel()
    return out, err


def pem(leaf: x509.Certificate) -> str:
    return leaf.public_bytes(Encoding.PEM).decode()


def window(start: float, end: float | None, explanation: str = "") -> str:
    """The renewal information whose window begins and ends so many seconds from now, with the page that explains it."""
    now = datetime.datetime.now(datetime.UTC)
    edges = [now + datetime.timedelta(seconds=seconds) if seconds is not None else None for seconds in (start, end)]
    first, last = (edge.isoformat(timespec="seconds") if edge else "tomorrow" for edge in edges)
    explained = {"explanationURL": explanation} if explanation else {}
    return json.dumps({"suggestedWindow": {"start": first, "end": last}, **explained})


@dataclass(frozen=True)
class Negotiated:
    """What one handshake of pyOpenSSL agreed on; ``chain`` is what the server sent, the leaf first."""

    chain: list[x509.Certificate]
    version: str
    cipher: str | None
    group: str | None
    alpn: bytes
    asked_for_certificate: bool

    @property
    def leaf(self) -> x509.Certificate:
        return self.chain[0]


def negotiate(
    port: int,
    name: str | bytes | None,
    *,
    root: str | None = None,
    versions: tuple[int, int] = (0, 0),
    ciphers: str | None = None,
    groups: str | None = None,
    alpn: Sequence[bytes] = (),
    timeout: float = 30,
) -> Negotiated:
    """Connect with the OpenSSL that mitmproxy uses, newer than Python's own, with full control of what is offered.

    ``versions`` are the lowest and the highest (0: no bound), ``name`` goes out as it is. Without ``root`` anything is
    trusted. Raises ``SSL.Error`` where no handshake comes of it.
    """
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(versions[0])
    context.set_max_proto_version(versions[1])
    if ciphers is not None:
        context.set_cipher_list(ciphers.encode())
    if groups is not None:
        assert SSL._lib.SSL_CTX_set1_curves_list(context._context, groups.encode()) == 1
    if alpn:
        context.set_alpn_protos(list(alpn))
    if root is not None:
        store = context.get_cert_store()
        assert store is not None
        store.add_cert(crypto.X509.from_cryptography(x509.load_pem_x509_certificate(root.encode())))
        context.set_verify(SSL.VERIFY_PEER)
    states: set[bytes] = set()
    context.set_info_callback(lambda connection, *_: states.add(connection.get_state_string()))
    with socket.create_connection(("127.0.0.1", port), timeout) as plain:
        # pyOpenSSL cannot use Python's timeouts, so the kernel keeps the time.
        plain.setblocking(True)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(timeout), 0))
        secure = SSL.Connection(context, plain)
        if name is not None:
            secure.set_tlsext_host_name(name.encode() if isinstance(name, str) else name)
        secure.set_connect_state()
        secure.do_handshake()
        return Negotiated(
            chain=list(secure.get_peer_cert_chain(as_cryptography=True) or ()),
            version=secure.get_protocol_version_name(),
            cipher=secure.get_cipher_name(),
            group=secure.get_group_name(),
            alpn=secure.get_alpn_proto_negotiated(),
            asked_for_certificate=any(b"read server certificate request" in state for state in states),
        )
