"""Modes, protocols and challenges: what is served in which mode, and what is left to mitmproxy."""

import asyncio
import contextlib
import http.client
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, QuicEvent
from aioquic.quic.packet import QuicErrorCode
from cryptography import x509

from tests.end_to_end.client import (
    HANDSHAKE_FAILURE,
    UNRECOGNIZED_NAME,
    alert_for,
    eventually,
    get,
    handshake,
    handshakes,
    negotiate,
    untrusted,
)
from tests.end_to_end.conftest import StartProxy, default_options
from tests.servers.base import Reply, free_port, is_open
from tests.servers.ca import ThrowawayCA
from tests.servers.forked import Forked
from tests.servers.mitmdump import SCRIPT, Mitmdump
from tests.servers.pebble import ChallTestSrv, Pebble
from tests.servers.upstream import Upstream
from tests.servers.validation import Validation

FreshName = Callable[[], str]
Head = list[tuple[str, str]]

GET = [(":method", "GET"), (":scheme", "https"), (":path", "/")]

CHALLENGES = "/.well-known/acme-challenge/"
TOKEN = "q3rV2Zu0mFv1X9mYk4Jp5w-unknown_TOKEN"


def is_mitmproxys(certificate: x509.Certificate) -> bool:
    return "mitmproxy" in certificate.issuer.rfc4514_string()


# Reverse mode


def test_dead_upstream_closes_neither_challenge_nor_handshake(
    proxy: StartProxy, root: str, fresh_name: FreshName
) -> None:
    """With the upstream down a new name is validated and trusted, and only its request fails, with 502."""
    name, running = fresh_name(), proxy(start=False)
    running.upstream = f"http://127.0.0.1:{free_port()}"
    running.start()

    assert handshake(running.https_port, name, root).names == [name]
    assert get(running.https_port, name, root).startswith("HTTP/1.1 502 ")
    assert ask(running.http_port, "/").status == 502
    assert ask(running.http_port, CHALLENGES + TOKEN).status == 404


def test_upstream_is_connected_first_without_acme_lazy(proxy: StartProxy, root: str, fresh_name: FreshName) -> None:
    """With acme_lazy=false mitmproxy connects to the upstream first, its default, and a dead upstream ends it."""
    name, running = fresh_name(), proxy(start=False, acme_lazy=False)
    with Upstream() as mortal:
        running.upstream = mortal.url
        running.start()
        handshake(running.https_port, name, root)

    with pytest.raises(OSError, match=r"EOF|reset"):
        handshake(running.https_port, name, root)
    with pytest.raises((OSError, http.client.HTTPException)):
        ask(running.http_port, CHALLENGES + TOKEN)


@contextlib.contextmanager
def _speaking(answer: bytes, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Listen at this port; with ``context`` answer what is read over TLS, else speak first."""

    class Answering(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                if context is None:
                    self.request.sendall(answer)
                    return
                with context.wrap_socket(self.request, server_side=True) as secure:
                    secure.recv(65_536)
                    secure.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_raw_modes_connect_first_beside_a_lazy_one(
    proxy: StartProxy, root: str, fresh_name: FreshName, tmp_path: Path
) -> None:
    """reverse:tls uses the protocol of its upstream, and in reverse:tcp the upstream speaks first; http is lazy."""
    identity, name = ThrowawayCA(tmp_path).issue("up.test"), fresh_name()
    secure = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    secure.load_cert_chain(identity.certificate, identity.key)
    secure.set_alpn_protocols(["http/1.1"])
    running, tls_port, tcp_port = proxy(start=False, ssl_insecure=True), free_port(), free_port()
    running.upstream = f"http://127.0.0.1:{free_port()}"
    with _speaking(b"HTTP/1.1 200 OK\r\n\r\n", secure) as tls_upstream, _speaking(b"220 hello") as tcp_upstream:
        for scheme, upstream, port in (("tls", tls_upstream, tls_port), ("tcp", tcp_upstream, tcp_port)):
            running.extra_arguments += ["--mode", f"reverse:{scheme}://127.0.0.1:{upstream}@127.0.0.1:{port}"]
        running.start()
        assert handshake(tls_port, name, root, alpn=["h2", "http/1.1"]).alpn == "http/1.1"
        assert get(tls_port, name, root).startswith("HTTP/1.1 200 OK")
        with socket.create_connection(("127.0.0.1", tcp_port), 10) as client:
            assert client.recv(100) == b"220 hello"
        assert ask(running.http_port, CHALLENGES + TOKEN).status == 404
        assert handshake(running.https_port, name, root, alpn=["h2"]).alpn == "h2"


def test_missing_http_mode_is_logged_at_the_start(proxy: StartProxy) -> None:
    """If no mode reads HTTP, the CA's request is passed on as bytes."""
    running = proxy(start=False)
    running.upstream = f"tcp://127.0.0.1:{free_port()}"
    running.ready = lambda: is_open(running.http_port)  # type: ignore[method-assign]  # it answers nothing
    running.start()
    eventually(lambda: "http-01 cannot be answered in mode reverse:tcp://" in running.log_text())


def test_certificates_of_the_operator_are_for_names_that_are_not_ours(
    proxy: StartProxy, root: str, fresh_name: FreshName, tmp_path: Path
) -> None:
    """mitmproxy's `certs` applies to other names only: a certificate of ours takes precedence."""
    identity = ThrowawayCA(tmp_path).issue("*.elsewhere.test", "*.example.test")
    both = tmp_path / "both.pem"
    both.write_bytes(identity.key.read_bytes() + identity.certificate.read_bytes())
    running, name = proxy(certs=[f"*.elsewhere.test={both}", f"*.example.test={both}"]), fresh_name()

    assert "trustme" in untrusted(running.https_port, "www.elsewhere.test").issuer.rfc4514_string()
    assert alert_for(running.https_port, "www.nowhere.test") == UNRECOGNIZED_NAME
    assert handshake(running.https_port, name, root).names == [name]


def test_fallback_reject_closes_at_once(proxy: StartProxy, dns: ChallTestSrv, fresh_name: FreshName) -> None:
    """With acme_fallback=reject a name that cannot be validated gets an alert, at first and during its backoff."""
    name, running = fresh_name(), proxy(acme_fallback="reject")
    dns.set_servfail(name)

    for _ in range(3):
        assert alert_for(running.https_port, name, timeout=10) == HANDSHAKE_FAILURE


def test_unknown_names_are_left_to_mitmproxy_with_the_option(proxy: StartProxy) -> None:
    """With acme_unknown_names=mitm they get mitmproxy's own certificate."""
    running = proxy(acme_unknown_names="mitm")

    assert is_mitmproxys(untrusted(running.https_port, "www.elsewhere.test"))


# HTTP/2 and HTTP/3


def test_http2_reaches_the_upstream(proxy: StartProxy, root: str, fresh_name: FreshName) -> None:
    """An HTTP/2 client is served our certificate, and its request reaches the upstream."""
    name, running = fresh_name(), proxy()
    context = ssl.create_default_context(cadata=root)
    context.set_alpn_protocols(["h2"])

    with (
        socket.create_connection(("127.0.0.1", running.https_port), 30) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        assert secure.selected_alpn_protocol() == "h2"
        assert get_h2(secure, name, "/over-h2") == b"hello from upstream /over-h2\n"


def get_h2(secure: ssl.SSLSocket, name: str, path: str) -> bytes:
    """Fetch one page, and return its body."""
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    headers = [(":method", "GET"), (":scheme", "https"), (":authority", name), (":path", path)]
    client.send_headers(1, headers, end_stream=True)
    body, ended = b"", False
    while not ended:
        secure.sendall(client.data_to_send())
        chunk = secure.recv(65_536)
        assert chunk, "the proxy hung up"
        for event in client.receive_data(chunk):
            body += event.data or b"" if isinstance(event, h2.events.DataReceived) else b""
            ended = ended or isinstance(event, h2.events.StreamEnded)
    return body


class H3Client(QuicConnectionProtocol):
    """Fetches over HTTP/3, and records the server's certificate."""

    def __init__(self, *arguments: object, **keywords: object) -> None:
        super().__init__(*arguments, **keywords)  # type: ignore[arg-type]  # aioquic's own
        self._http = H3Connection(self._quic)
        self._events: asyncio.Queue[H3Event] = asyncio.Queue()

    @property
    def leaf(self) -> x509.Certificate:
        certificate = self._quic.tls._peer_certificate
        assert certificate is not None
        return certificate

    def quic_event_received(self, event: QuicEvent) -> None:
        for seen in self._http.handle_event(event):
            self._events.put_nowait(seen)

    async def get(self, name: str, path: str) -> tuple[int, bytes]:
        """Return status and body."""
        stream = self._quic.get_next_available_stream_id()
        headers = {":method": "GET", ":scheme": "https", ":authority": name, ":path": path}
        self._http.send_headers(stream, [(k.encode(), v.encode()) for k, v in headers.items()], end_stream=True)
        self.transmit()
        status, body = 0, b""
        while True:
            event = await asyncio.wait_for(self._events.get(), 20)
            if isinstance(event, HeadersReceived):
                status = int(dict(event.headers)[b":status"])
            if isinstance(event, DataReceived):
                body += event.data
            if isinstance(event, HeadersReceived | DataReceived) and event.stream_ended:
                return status, body

    async def get_all(self, *heads: Head) -> list[int]:
        """Send a request with each of these heads, then read; return the statuses in the order of the requests."""
        for head in heads:
            fields = [(name.encode(), value.encode()) for name, value in (*GET, *head)]
            self._http.send_headers(self._quic.get_next_available_stream_id(), fields, end_stream=True)
            self.transmit()
        statuses, ended = dict[int, int](), set[int]()
        while len(ended) < len(heads):
            event = await asyncio.wait_for(self._events.get(), 20)
            if isinstance(event, HeadersReceived):
                statuses[event.stream_id] = int(dict(event.headers)[b":status"])
            if isinstance(event, HeadersReceived | DataReceived) and event.stream_ended:
                ended.add(event.stream_id)
        return [status for _, status in sorted(statuses.items())]


async def get_h3(port: int, name: str, path: str, root: str | None) -> tuple[x509.Certificate, int, bytes]:
    """Fetch over HTTP/3, and return leaf, status and body. Raises ``ConnectionError`` unless it is trusted."""
    configuration = QuicConfiguration(
        is_client=True,
        alpn_protocols=H3_ALPN,
        server_name=name,
        verify_mode=ssl.CERT_REQUIRED if root else ssl.CERT_NONE,
        cadata=root.encode() if root else None,
    )
    async with (
        asyncio.timeout(10),
        connect("127.0.0.1", port, configuration=configuration, create_protocol=H3Client) as client,
    ):
        assert isinstance(client, H3Client)
        return client.leaf, *await client.get(name, path)


async def refusal_h3(port: int, name: str) -> int:
    """Return the error that ends a QUIC handshake before it is complete."""
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=H3_ALPN, server_name=name, verify_mode=ssl.CERT_NONE
    )
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    class Refused(QuicConnectionProtocol):
        def quic_event_received(self, event: QuicEvent) -> None:
            if isinstance(event, ConnectionTerminated):
                ended.set_result(event.error_code)

    with contextlib.suppress(ConnectionError):
        async with (
            asyncio.timeout(10),
            connect("127.0.0.1", port, configuration=configuration, create_protocol=Refused),
        ):
            raise AssertionError("the handshake was completed")
    return await asyncio.wait_for(ended, 10)


@pytest.fixture
async def secure_proxy(proxy: StartProxy, tmp_path: Path) -> AsyncIterator[Mitmdump]:
    """A proxy, not started, in front of an upstream that speaks HTTPS over TCP only."""
    ca = ThrowawayCA(tmp_path / "upstream")
    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=ca.server_context())
    async with server:
        running = proxy(start=False, ssl_verify_upstream_trusted_ca=str(ca.bundle))
        running.upstream = f"https://localhost:{server.sockets[0].getsockname()[1]}"
        yield running


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    path = (await reader.readuntil(b"\r\n\r\n")).split()[1]
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(path), path))
    writer.close()


async def test_http3_is_served_the_same_certificate(secure_proxy: Mitmdump, root: str, fresh_name: FreshName) -> None:
    """In reverse:https the first HTTP/3 client of a name is trusted, and reaches an upstream that speaks TCP."""
    name, running = fresh_name(), secure_proxy.start()

    leaf, status, body = await get_h3(running.https_port, name, "/over-h3", root)

    assert (status, body) == (200, b"/over-h3")
    over_tcp = await asyncio.to_thread(handshake, running.https_port, name, root)
    assert over_tcp.leaf == leaf
    assert "/over-tcp" in await asyncio.to_thread(get, running.https_port, name, root, "/over-tcp")


async def test_http3_requests_at_once(secure_proxy: Mitmdump, root: str, fresh_name: FreshName) -> None:
    """Each has its own connection to an upstream that speaks HTTP/1: mitmproxy alone would mix them up."""
    name, running = fresh_name(), secure_proxy.start()
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=H3_ALPN, server_name=name, cadata=root.encode(), verify_mode=ssl.CERT_REQUIRED
    )
    async with (
        asyncio.timeout(20),
        connect("127.0.0.1", running.https_port, configuration=configuration, create_protocol=H3Client) as client,
    ):
        assert isinstance(client, H3Client)
        for _ in range(2):
            assert await client.get_all(*[[(":authority", name)]] * 5) == [200] * 5


async def test_http3_is_refused_without_certificate(
    secure_proxy: Mitmdump, dns: ChallTestSrv, root: str, fresh_name: FreshName
) -> None:
    """Over HTTP/3 too a foreign name is refused, and with acme_fallback=reject one without a certificate."""
    name, good = fresh_name(), fresh_name()
    dns.set_servfail(name)
    secure_proxy.options["acme_fallback"] = "reject"
    running = secure_proxy.start()

    assert await refusal_h3(running.https_port, name) == QuicErrorCode.CRYPTO_ERROR + 40  # handshake_failure
    assert (
        await refusal_h3(running.https_port, "www.elsewhere.test") == QuicErrorCode.CRYPTO_ERROR + 112
    )  # unrecognized_name
    assert (await get_h3(running.https_port, good, "/", root))[1] == 200


def first_datagram(name: str) -> bytes:
    """Return the first datagram of an HTTP/3 client."""
    client = QuicConnection(configuration=QuicConfiguration(alpn_protocols=H3_ALPN, server_name=name))
    client.connect(("127.0.0.1", 1), now=0.0)
    return client.datagrams_to_send(now=0.0)[0][0]


async def test_http3_orders_nothing_before_the_address_is_validated(
    secure_proxy: Mitmdump, pebble: Pebble, root: str, fresh_name: FreshName
) -> None:
    """A client that forges its address gets a small Retry, and no order; one that answers is served (RFC 9000)."""
    running, name = secure_proxy.start(), fresh_name()
    before = pebble.seen()

    replies = []
    for forged in (fresh_name(), fresh_name(), name):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.settimeout(10)
            silent.sendto(first_datagram(forged), ("127.0.0.1", running.https_port))
            replies.append(await asyncio.to_thread(silent.recv, 65_536))

    assert (await get_h3(running.https_port, name, "/", root))[1] == 200
    assert (pebble.seen() - before).orders == 1
    assert all(reply[0] & 0xF0 == 0xF0 and len(reply) < 400 for reply in replies)  # long headers of type Retry


async def test_http3_is_served_beside_a_flood_of_first_datagrams(
    secure_proxy: Mitmdump, root: str, fresh_name: FreshName
) -> None:
    """Beyond some unfinished handshakes each client must validate its address, and is then served."""
    running, name = secure_proxy.start(), fresh_name()
    first = await get_h3(running.https_port, name, "/", root)

    with contextlib.ExitStack() as held:
        for _ in range(600):
            silent = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            silent.sendto(first_datagram(name), ("127.0.0.1", running.https_port))
        assert await get_h3(running.https_port, name, "/", root) == first


# Regular and SOCKS5 mode


class ForwardMitmdump(Forked):
    """``https_port`` is a regular HTTP proxy, ``http_port`` a SOCKS5 proxy."""

    def arguments(self) -> list[str]:
        modes = [f"regular@127.0.0.1:{self.https_port}", f"socks5@127.0.0.1:{self.http_port}"]
        arguments = super().arguments()
        after = arguments[arguments.index("--set") :]
        return ["-s", str(SCRIPT), *(word for mode in modes for word in ("--mode", mode)), *after]

    def ready(self) -> bool:
        return is_open(self.https_port) and is_open(self.http_port)

    def served(self, name: str, target: int, *, socks: bool) -> x509.Certificate:
        """Open a tunnel to the target port, and return the certificate in it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", self.http_port if socks else self.https_port), 30) as plain:
            self._open_socks(plain, target) if socks else self._open_connect(plain, target)
            with context.wrap_socket(plain, server_hostname=name) as secure:
                return x509.load_der_x509_certificate(secure.getpeercert(binary_form=True) or b"")

    @staticmethod
    def _open_connect(plain: socket.socket, target: int) -> None:
        plain.sendall(f"CONNECT 127.0.0.1:{target} HTTP/1.1\r\nHost: 127.0.0.1:{target}\r\n\r\n".encode())
        assert plain.recv(65_536).startswith(b"HTTP/1.1 200 ")

    @staticmethod
    def _open_socks(plain: socket.socket, target: int) -> None:
        plain.sendall(b"\x05\x01\x00")
        assert plain.recv(2) == b"\x05\x00"
        plain.sendall(b"\x05\x01\x00\x01" + socket.inet_aton("127.0.0.1") + struct.pack("!H", target))
        assert plain.recv(10)[:2] == b"\x05\x00"


@pytest.fixture(scope="module")
def ca(dns: ChallTestSrv) -> Iterator[Pebble]:
    """The CA of the forward proxy."""
    with Pebble(dns) as server:
        yield server


@pytest.fixture(scope="module")
def forward(ca: Pebble, upstream: Upstream) -> Iterator[ForwardMitmdump]:
    """A forward proxy on a storage that has a certificate for listed.example.test and one for stored.example.test."""
    options = default_options(ca, ca.folder / "store")
    with Forked(upstream.url, options, http_port=ca.http_port) as first:
        handshakes(first.https_port, ["listed.example.test", "stored.example.test"], ca.root())
    options |= {"acme_certificates": ["listed.example.test"], "acme_allow_any_domain": True}
    with ForwardMitmdump(upstream.url, options) as server:
        yield server


def test_forward_proxies_order_nothing_and_serve_what_is_listed(
    forward: ForwardMitmdump, ca: Pebble, upstream: Upstream, fresh_name: FreshName
) -> None:
    """Through CONNECT and SOCKS5 only names of acme_certificates are ours, and nothing is ordered on demand."""
    before = ca.seen()

    for socks in (False, True):
        ours = forward.served("listed.example.test", upstream.port, socks=socks)
        assert "Pebble" in ours.issuer.rfc4514_string()
        for name in ("stored.example.test", fresh_name(), "www.elsewhere.test"):
            assert is_mitmproxys(forward.served(name, upstream.port, socks=socks)), name

    assert (ca.seen() - before).requests == 0


def test_tls_to_the_proxy_itself_is_http_1(forward: ForwardMitmdump, ca: Pebble) -> None:
    """A client that speaks TLS to the regular proxy is not offered HTTP/2, over which mitmproxy cannot CONNECT."""
    agreed = negotiate(forward.https_port, "listed.example.test", root=ca.root(), alpn=[b"h2", b"http/1.1"])

    assert agreed.alpn == b"http/1.1"


def test_forward_proxies_pass_the_challenges_of_others_on(forward: ForwardMitmdump, upstream: Upstream) -> None:
    """A challenge for another server arrives there."""
    url = f"http://127.0.0.1:{upstream.port}{CHALLENGES}{TOKEN}"

    assert "hello from upstream" in ask(forward.https_port, url).text


def test_reverse_and_regular_mode_side_by_side(
    proxy: StartProxy, upstream: Upstream, root: str, fresh_name: FreshName
) -> None:
    """A certificate that one port obtained on demand is not served to clients that go elsewhere through another."""
    name, port, running = fresh_name(), free_port(), proxy(start=False)
    running.extra_arguments = ["--mode", f"regular@127.0.0.1:{port}"]
    running.start()
    handshake(running.https_port, name, root)
    front = ForwardMitmdump(upstream.url, {}, https_port=port)

    with closing(front):
        assert is_mitmproxys(front.served(name, upstream.port, socks=False))


# Challenges


def ask(port: int, path: str, *, method: str = "GET", tls: bool = False, host: str = "a.example.test") -> Reply:
    """Request a path as it is written, without verifying the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection: http.client.HTTPConnection = (
        http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=context)
        if tls
        else http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    )
    with closing(connection):
        body = b"a body" if method == "POST" else None
        connection.request(method, path, body, {"Host": host, "Connection": "close"})
        reply = connection.getresponse()
        return Reply(reply.status, reply.msg, reply.read())


UNKNOWN = {
    "unknown": TOKEN,
    "empty": "",
    "short": "abc",
    "long": "a" * 10_000,
    "query": f"{TOKEN}?x=1",
    "upwards": "../../../../etc/passwd",
    "encoded upwards": "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "deeper": f"{TOKEN}/{TOKEN}",
    "another key": "../accounts/x",
    "not ASCII": "%ff%fe%00",
}


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_unknown_tokens_are_404_and_reach_no_upstream(
    proxy: StartProxy, upstream: Upstream, pebble: Pebble, tls: bool
) -> None:
    """With any token, by GET, HEAD or POST: 404, and no request to the upstream or the CA."""
    running = proxy()
    port = running.https_port if tls else running.http_port
    asked, before = len(upstream.requests), pebble.seen()

    for method in ("GET", "HEAD", "POST"):
        statuses = {what: ask(port, CHALLENGES + path, method=method, tls=tls).status for what, path in UNKNOWN.items()}
        assert statuses == dict.fromkeys(UNKNOWN, 404), method

    assert len(upstream.requests) == asked
    assert (pebble.seen() - before).requests == 0
    assert "hello from upstream /.well-known/other" in ask(port, "/.well-known/other", tls=tls).text


def test_unknown_tokens_are_passed_on_by_option(proxy: StartProxy, root: str, fresh_name: FreshName) -> None:
    """With acme_challenge_passthrough the upstream answers for its own tokens; ours still work."""
    name, running = fresh_name(), proxy(acme_challenge_passthrough=True)

    for tls, port in ((False, running.http_port), (True, running.https_port)):
        assert ask(port, CHALLENGES + TOKEN, tls=tls).text == f"hello from upstream {CHALLENGES}{TOKEN}\n"
    assert handshake(running.https_port, name, root).names == [name]


def test_known_token_is_answered_on_every_port_and_by_get_and_head_only(
    dns: ChallTestSrv, upstream: Upstream, fresh_name: FreshName, tmp_path: Path
) -> None:
    """While the CA validates, its token is answered in plain text and over TLS, under any Host, and never upstream."""
    name = fresh_name()
    with (
        Validation() as validation,
        Pebble(dns, http_port=validation.port) as ca,
        Forked(upstream.url, default_options(ca, tmp_path / "store")) as running,
        ThreadPoolExecutor(1) as pool,
    ):
        asked = len(upstream.requests)
        client = pool.submit(handshake, running.https_port, name, ca.root())
        path = validation.paths.get(timeout=20)

        plain = ask(running.http_port, path, host=name)
        secure = ask(running.https_port, path, tls=True, host="other.test")
        head = ask(running.http_port, path, method="HEAD")
        post = ask(running.http_port, path, method="POST")

        assert plain.status == secure.status == head.status == 200
        assert plain.body.startswith(path.removeprefix(CHALLENGES).encode() + b".")
        assert secure.body == plain.body
        assert (head.body, head.headers["Content-Length"]) == (b"", str(len(plain.body)))
        assert post.status == 404
        assert len(upstream.requests) == asked
        validation.answer(plain.body)
        assert client.result(20).names == [name]
        assert ask(running.http_port, path).status == 404
