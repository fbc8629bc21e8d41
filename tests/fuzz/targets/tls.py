"""ClientHellos as mitmproxy and our hooks read them, and the first packets of QUIC."""

from functools import cache

from aioquic.h3.connection import H3_ALPN
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from mitmproxy.net.tls import starts_like_tls_record
from mitmproxy.proxy.layers.tls import parse_client_hello
from mitmproxy.tls import ClientHello
from OpenSSL import SSL

from mitmproxy_acme.core.key_types import KEY_TYPES
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.mitm.punycode_errors import PunycodeErrors
from mitmproxy_acme.mitm.tls import quic_retry, tls_alpn
from mitmproxy_acme.mitm.tls.client_hello import ClientCapabilities

from ..target import Target

_HEADERS = 9  # of the record, and of the handshake message


def _hello(name: str, protocols: list[bytes]) -> bytes:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if protocols:
        context.set_alpn_protos(protocols)
    client = SSL.Connection(context)
    client.set_tlsext_host_name(name.encode())
    client.set_connect_state()
    try:
        client.do_handshake()
    except SSL.WantReadError:
        return client.bio_read(65_536)
    raise AssertionError("a handshake without a server")


def client_hello(data: bytes) -> None:
    """What arrives on a connection of TLS; mitmproxy finds the message in it, and our hook reads that."""
    starts_like_tls_record(data)
    try:
        hello = parse_client_hello(data)
    except ValueError:  # documented; the connection is closed
        return
    if hello is not None:
        _read(hello)


def client_hello_body(data: bytes) -> None:
    """The message alone: every byte is read."""
    try:
        hello = ClientHello(data)
    except (EOFError, ValueError):  # what parse_client_hello catches
        return
    _read(hello)


def _read(hello: ClientHello) -> None:
    for tls13 in (True, False):
        said = ClientCapabilities.read(hello.cipher_suites, hello.extensions, tls13=tls13)
        chosen = said.choose(KEY_TYPES)
        assert chosen
        assert set(chosen) <= set(KEY_TYPES)
    if (name := hello.sni) is not None:
        tls_alpn.address_of(name)
        tls_alpn.validated_identifier(ServerName(name))


def quic_initial(data: bytes) -> None:
    """A first datagram: it is answered with a Retry or dropped, and any token is checked."""
    header = quic_retry._initial(data)
    if header is None:
        return
    retry = _retry()
    assert len(retry._retry_of(_Client(), header)) < len(data)  # type: ignore[arg-type]  # only its address is read
    token = retry._decrypt(header.token)
    assert token is None or header.token


class _Client:
    peername = ("192.0.2.1", 1)


@cache
def _retry() -> quic_retry.QuicRetry:
    return quic_retry.QuicRetry()


def _initials() -> list[bytes]:
    client = QuicConnection(configuration=QuicConfiguration(alpn_protocols=H3_ALPN, server_name="a.example.test"))
    client.connect(("127.0.0.1", 443), now=0.0)
    return [client.datagrams_to_send(now=0.0)[0][0]]


def _records() -> list[bytes]:
    return [
        _hello(name, alpn)
        for name in ("a.example.test", "1.0.0.127.in-addr.arpa")
        for alpn in ([], [b"h2", b"acme-tls/1"])
    ]


def _bodies() -> list[bytes]:
    return [record[_HEADERS:] for record in _records()]


_WORDS = (b"xn--", b"xn--mn999999999999999n", b"999999", b"\0\0", b".arpa", b"\x0a\x0a", b"\xff\xff")
TARGETS = (
    Target("client_hello", client_hello, _records, longest=2_048, words=_WORDS, prepare=PunycodeErrors().install),
    Target(
        "client_hello_body", client_hello_body, _bodies, longest=2_048, words=_WORDS, prepare=PunycodeErrors().install
    ),
    Target("quic_initial", quic_initial, _initials, longest=1_500),
)
