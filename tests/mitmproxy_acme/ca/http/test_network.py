"""Requests to a CA that is unkind to nonces and connections: an in-process one, which takes each nonce once.

And to one whose replies have no end, over a real connection.
"""

import base64
import contextlib
import datetime
import gzip
import itertools
import json
import logging
import math
import socket
import socketserver
import ssl
import struct
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import josepy as jose
import pytest
import requests
import trustme
import urllib3
from acme import errors, messages
from cryptography.hazmat.primitives.asymmetric import ec

from mitmproxy_acme.ca import problems
from mitmproxy_acme.ca.client import Client
from mitmproxy_acme.ca.http import deadline
from mitmproxy_acme.ca.http.allowed_hosts import UrlRefused
from mitmproxy_acme.ca.http.network import Ignored, Network
from mitmproxy_acme.ca.http.transport import Session, Unanswered
from mitmproxy_acme.ca.key_generation import new_account_key
from mitmproxy_acme.core.errors import IssuanceError, IssuerUnavailable, Unfinished
from tests.servers.base import free_port
from tests.servers.ca import ThrowawayCA
from tests.servers.chaos import Chaos
from tests.servers.hostile import HostileCa, Reply

CA = "https://ca.example/"


class Ca:
    """Takes each nonce once, and refuses so many good ones of each request; ``generous`` gives one with each reply."""

    def __init__(self, *, refuse: int = 0, generous: bool = True) -> None:
        self.refuse, self.generous = refuse, generous
        self.heads = self.posts = 0
        self.spoilt: str | None = None  # the nonce that comes with each post's reply, in the place of a good one
        self._given: set[str] = set()
        self._numbers = itertools.count()
        self._refused: dict[str, int] = {}

    def request(self, method: str, _: str, *, data: str = "", **__: Any) -> requests.Response:
        if method == "HEAD":
            self.heads += 1
            return self._reply(method, 200, {}, nonce=True)
        self.posts += 1
        sent = json.loads(data)
        nonce = json.loads(jose.decode_b64jose(sent["protected"]))["nonce"]
        known = nonce in self._given
        self._given.discard(nonce)
        refused = self._refused.get(sent["payload"], 0)
        if known and refused >= self.refuse:
            return self._reply(method, 200, {"fine": True}, nonce=self.generous)
        self._refused[sent["payload"]] = refused + known
        return self._reply(method, 400, {"type": "urn:ietf:params:acme:error:badNonce"}, nonce=self.generous)

    def close(self) -> None:
        pass

    def _reply(self, method: str, status: int, body: object, *, nonce: bool) -> requests.Response:
        response = requests.Response()
        response.status_code = status
        response._content = json.dumps(body).encode()
        response.headers["Content-Type"] = "application/problem+json" if status >= 400 else "application/json"
        if nonce:
            fresh = base64.urlsafe_b64encode(f"nonce {next(self._numbers):012}".encode()).decode().rstrip("=")
            self._given.add(fresh)
            spoilt = self.spoilt if method == "POST" else None
            response.headers["Replay-Nonce"] = fresh if spoilt is None else spoilt
        return response


class Number(jose.JSONObjectWithFields):
    number: int = jose.field("number")


def network(ca: Ca) -> Network:
    made = client_of(f"{CA}directory")
    made.session = ca  # type: ignore[assignment]  # it has what the library uses of a session
    return made


def client_of(url: str, ca_bundle: str = "", timeout: float = 30.0) -> Network:
    key = jose.JWKEC(key=ec.generate_private_key(ec.SECP256R1()))
    return Network(key, jose.ES256, ca_bundle, timeout, directory_url=url)


def post(client: Network, number: int = 0) -> requests.Response:
    return client.post(f"{CA}order", Number(number=number), new_nonce_url=f"{CA}nonce")


@pytest.fixture
def impatient_interpreter() -> Iterator[None]:
    """Threads interrupt each other at every opportunity."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("impatient_interpreter")
@pytest.mark.parametrize("generous", [True, False], ids=["nonces with replies", "nonces by HEAD only"])
def test_no_thread_takes_the_nonce_of_another(*, generous: bool) -> None:
    """Of eight threads, each gets a reply, though the CA refuses each one's first two good nonces."""
    ca = Ca(refuse=2, generous=generous)
    client = network(ca)
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda number: post(client, number), range(400)))
    assert [reply.json() for reply in replies] == [{"fine": True}] * 400


def test_nonces_are_asked_for_once() -> None:
    """Each reply brings the next one."""
    ca = Ca()
    client = network(ca)
    for number in range(5):
        post(client, number)
    assert (ca.heads, ca.posts) == (1, 5)


def test_refusals_without_end_are_told() -> None:
    """A CA that likes no nonce is given up, after more than by chance could be."""
    ca = Ca(refuse=1_000)
    with pytest.raises(messages.Error, match="badNonce"):
        post(network(ca))
    assert ca.posts == 30


@pytest.mark.parametrize("of_nonces", [f"{CA}nonce", None])
def test_lost_request_is_sent_again_where_the_ca_answers(
    monkeypatch: pytest.MonkeyPatch, of_nonces: str | None
) -> None:
    """It is asked where it gives nonces, which costs it least; the answer is awaited once more, and no third time."""
    client, asked, posts = network(Ca()), list[str](), list[str]()

    def lose(url: str, *_: Any, **__: Any) -> requests.Response:
        posts.append(url)
        raise Unanswered

    monkeypatch.setattr(client, "_post_with_nonces", lose)
    monkeypatch.setattr(client, "_answers", lambda url: not asked.append(url))  # type: ignore[func-returns-value]
    with pytest.raises(Ignored):
        client.post(f"{CA}order", Number(number=1), new_nonce_url=of_nonces)
    assert (asked, posts) == ([of_nonces or f"{CA}order"], [f"{CA}order"] * 2)


def test_old_nonce_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor are those before it: another is asked for."""
    now = 1_000.0
    monkeypatch.setattr("mitmproxy_acme.ca.http.network.time", SimpleNamespace(monotonic=lambda: now))
    ca = Ca()
    client = network(ca)
    post(client)
    now += 599.9
    post(client)
    assert ca.heads == 1
    now += 600.0
    post(client)
    assert (ca.heads, len(client._fresh)) == (2, 1)


def test_few_nonces_are_kept() -> None:
    """A CA gives one with each reply, and the newest are used first."""
    client = network(Ca())
    for number in range(300):
        client._fresh.append((float(number), b"nonce"))
    assert len(client._fresh) == 256
    assert client._fresh[0][0] == 44.0


def test_ca_without_nonces_is_said_to_give_none(monkeypatch: pytest.MonkeyPatch) -> None:
    client = network(Ca())
    monkeypatch.setattr(client, "_nonce_of", lambda _: None)
    with pytest.raises(errors.ClientError, match=r"^the CA gives no nonces$"):
        post(client)


def test_libraries_log_no_account_traffic() -> None:
    """Nor an unparsable header, which a CA chooses."""
    levels = {name: logging.getLogger(name).level for name in ("acme", "urllib3", "urllib3.connection")}
    assert levels == {"acme": logging.INFO, "urllib3": logging.INFO, "urllib3.connection": logging.ERROR}


@pytest.mark.parametrize(("message", "payload"), [(None, ""), (jose.JSONObjectWithFields(), "{}")])
def test_empty_object_is_no_empty_request(message: jose.JSONObjectWithFields | None, payload: str) -> None:
    """The former says that a challenge may be validated, the latter fetches it (RFC 8555 sections 6.3 and 7.5.1)."""
    client = network(Ca())
    sent = json.loads(client._wrap_in_jws(message, b"nonce", f"{CA}challenge"))
    assert jose.decode_b64jose(sent["payload"]).decode() == payload


class Endless(socketserver.BaseRequestHandler):
    """Answers with ``begin``, and then with ``part`` as long as the client reads."""

    part = b" " * 1_000
    begin = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
    pause = 0.0

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            self.request.recv(65_536)
            self.request.sendall(self.begin)
            while not self.server.closing.wait(self.pause):  # type: ignore[attr-defined]  # see ``serving``
                self.request.sendall(self.part)


class Mute(Endless):
    """Reads, and says nothing."""

    def handle(self) -> None:
        self.server.closing.wait()  # type: ignore[attr-defined]  # see ``serving``


class Chunked(Endless):
    """The same in chunks, of which none is the last."""

    part = b"1\r\n \r\n" * 1_000
    begin = Endless.begin.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n")


class Interim(Endless):
    """Says that the reply comes later, without end."""

    begin = b""
    part = b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000


class Header(Endless):
    """Sends a header that does not end, a byte at a time."""

    begin = b"HTTP/1.1 200 OK\r\nX: "
    part = b"x"
    pause = 0.01


class Body(Endless):
    """The same of a body."""

    pause = 0.01


class Huge(Endless):
    """Announces more than there is in the world, and sends it a byte at a time."""

    begin = Endless.begin.replace(b"\r\n\r\n", b"\r\nContent-Length: %d\r\n\r\n" % 10**30)
    pause = 0.01


class Negative(Endless):
    """Announces less than nothing."""

    begin = Endless.begin.replace(b"\r\n\r\n", b"\r\nContent-Length: -1\r\n\r\n")
    pause = 0.01


class Cut(Endless):
    """Announces more than it sends."""

    begin = Endless.begin.replace(b"\r\n\r\n", b"\r\nContent-Length: 100\r\n\r\n")

    def handle(self) -> None:
        self.request.recv(65_536)
        self.request.sendall(self.begin + b"{}")


class Packed(Endless):
    """Sends, unasked, what unpacks to a thousand times its length, as JSON."""

    packed = gzip.compress(b"[" + b" " * 2**20 + b"]")
    begin = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)

    def handle(self) -> None:
        asked = self.request.recv(65_536)
        self.request.sendall(self.begin + self.packed if b"Accept-Encoding: identity\r\n" in asked else b"")


class Garbled(Endless):
    """Sends an invalid header of many lines."""

    def handle(self) -> None:
        self.request.recv(65_536)
        junk = b"\x1b[2J not a header\r\n" * 1_000
        self.request.sendall(b"HTTP/1.1 200 OK\r\nX: a\r\n" + junk + b"\r\n")


class Cookies(Endless):
    """Gives a cookie, and says as JSON whether one came."""

    def handle(self) -> None:
        body = b"true" if b"Cookie:" in self.request.recv(65_536) else b"false"
        head = b"\r\nSet-Cookie: a=b; Path=/\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        self.request.sendall(Endless.begin.replace(b"\r\n\r\n", head) + body)


class Deaf(Endless):
    """Answers everything but the first ``ignored`` posts, which it reads and leaves; counts the posts."""

    ignored = 0
    posts = 0

    def handle(self) -> None:
        asked = self.request.recv(65_536)
        if asked.startswith(b"POST"):
            type(self).posts += 1
            if self.posts <= self.ignored:
                self.server.closing.wait()  # type: ignore[attr-defined]  # see ``serving``
                return
        head = b"\r\nConnection: close\r\nReplay-Nonce: bm9uY2UgMDAwMDAx\r\nContent-Length: 2\r\n\r\n"
        self.request.sendall(Endless.begin.replace(b"\r\n\r\n", head) + (b"" if asked.startswith(b"HEAD") else b"{}"))


@contextlib.contextmanager
def serving(kind: type[socketserver.BaseRequestHandler], context: ssl.SSLContext | None = None) -> Iterator[str]:
    """Serve on a real port, at the URL that this gives; over TLS with ``context``."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), kind) as server:
        server.closing = threading.Event()  # type: ignore[attr-defined]  # for the handlers
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"https://localhost:{server.server_address[1]}/dir"
        finally:
            server.closing.set()  # type: ignore[attr-defined]
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def trusting(
    folder: Path, kind: type[socketserver.BaseRequestHandler], timeout: float = 30.0
) -> Iterator[tuple[Network, str]]:
    """Serve over TLS; give a client that trusts it, and the URL."""
    ca = ThrowawayCA(folder)
    with serving(kind, ca.server_context()) as url:
        client = client_of(url, str(ca.bundle), timeout)
        with contextlib.closing(client.session):
            yield client, url


@pytest.mark.parametrize("kind", [Endless, Chunked, Interim])
def test_reply_without_end_is_given_up(tmp_path: Path, kind: type[Endless]) -> None:
    """Memory is not the CA's for as long as it sends, and the message says what it did."""
    said = r"^ca cannot be reached: its reply is too large$"
    with (
        trusting(tmp_path, kind) as (client, url),
        pytest.raises(IssuerUnavailable, match=said),
        problems.translated("ca"),
    ):
        client.get(url)


@pytest.mark.parametrize(("timeout", "reply"), [(0.3, 10.0), (30.0, 0.3)], ids=["request", "reply"])
@pytest.mark.parametrize("kind", [Header, Body, Huge, Negative])
def test_reply_that_drips_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Endless], timeout: float, reply: float
) -> None:
    """Neither is a thread: a byte now and then is no answer in time, and one that has begun ends soon."""
    monkeypatch.setattr("mitmproxy_acme.ca.http.deadline._LONGEST_REPLY", reply)
    said = r"^ca cannot be reached: it does not answer in time$"
    with (
        trusting(tmp_path, kind, timeout) as (client, url),
        pytest.raises(IssuerUnavailable, match=said),
        problems.translated("ca"),
    ):
        client.get(url)


def test_reply_that_is_cut_is_none(tmp_path: Path) -> None:
    """A chain would lose its intermediates."""
    with trusting(tmp_path, Cut) as (client, url), pytest.raises(requests.exceptions.ChunkedEncodingError):
        client.get(url)


def test_packed_reply_is_not_unpacked(tmp_path: Path) -> None:
    """Nothing was asked for that is: it is no ACME, and no memory is spent on it."""
    with (
        trusting(tmp_path, Packed) as (client, url),
        pytest.raises(IssuerUnavailable, match="is not ACME"),
        problems.translated("ca"),
    ):
        client.get(url)


def test_header_that_is_none_is_not_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither as it came nor with a traceback."""
    with (
        trusting(tmp_path, Garbled) as (client, url),
        contextlib.suppress(IssuerUnavailable),
        problems.translated("ca"),
    ):
        client.get(url)
    assert caplog.records == []


@pytest.mark.parametrize("status", [199, 600, 999])
def test_status_that_no_http_has_is_an_error(status: int) -> None:
    """Else it would be taken for success."""
    reply = requests.Response()
    reply.status_code = status
    with pytest.raises(errors.ClientError):
        Network._check_response(reply)


def test_addresses_share_the_time_to_connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not answer leaves time for the next, and eight of them take no longer than one."""
    tried: list[tuple[str, float]] = []
    connect = urllib3.util.connection.create_connection

    def create(address: tuple[str, int], timeout: float, **more: Any) -> socket.socket:
        tried.append((address[0], timeout))
        if address[0] != "127.0.0.1":
            raise TimeoutError
        return connect(address, timeout, **more)

    monkeypatch.setattr(urllib3.util.connection, "create_connection", create)
    silent = [f"127.0.0.{number}" for number in range(2, 9)]
    resolved = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0)) for host in (*silent, "127.0.0.1")]
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *a, **k: resolved if host == "localhost" else resolve(host, *a, **k)
    )
    monkeypatch.setattr("mitmproxy_acme.ca.http.network._FIRST_TRY", 80.0)
    with trusting(tmp_path, Cookies, 80.0) as (client, url):
        assert client.get(url).ok
    assert [host for host, _ in tried] == [*silent, "127.0.0.1"]
    assert 9 < tried[0][1] <= 10


def test_no_cookies_are_kept(tmp_path: Path) -> None:
    """ACME has none: they would only grow, and tell the CA who comes again."""
    with trusting(tmp_path, Cookies) as (client, url):
        assert [client.get(url).json() for _ in range(2)] == [False, False]


@pytest.mark.parametrize("url", ["http://ca.example/order", "https://ca.example:8443/", "https://127.0.0.1/"])
def test_url_elsewhere_is_not_asked(url: str) -> None:
    """Neither signed nor unsigned, nor for a nonce."""
    ca = Ca()
    client = network(ca)
    for ask in (client.get, client.head, lambda url: client.post(url, Number(number=1), new_nonce_url=f"{CA}nonce")):
        with pytest.raises(UrlRefused):
            ask(url)
    assert (ca.heads, ca.posts) == (0, 0)


@pytest.mark.parametrize("nonce", ["A" * 4_000, "!", "A", ""])
def test_invalid_nonce_is_ignored(nonce: str) -> None:
    """RFC 8555 section 6.5.1: the reply that it comes with counts all the same."""
    ca = Ca()
    ca.spoilt = nonce
    client = network(ca)
    for number in range(3):
        assert post(client, number).ok
    assert (ca.heads, ca.posts) == (3, 3)


class Plain(Endless):
    """Speaks HTTP where TLS is asked for."""

    def handle(self) -> None:
        self.request.sendall(self.begin)


def test_certificate_of_another_host(tmp_path: Path) -> None:
    """Nothing is sent to a server whose certificate is for another host, even a trusted one."""
    ca = ThrowawayCA(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*ca.issue("other.test"))

    class Other(Endless):
        asked = b""

        def handle(self) -> None:
            with contextlib.suppress(OSError):
                Other.asked += self.request.recv(65_536)

    with (
        serving(Other, context) as url,
        pytest.raises(IssuerUnavailable, match="is not trusted"),
        problems.translated("ca"),
    ):
        client_of(url, str(ca.bundle)).get(url)
    assert Other.asked == b""


_DAY = datetime.timedelta(days=1)


def _identity(begin: datetime.timedelta, end: datetime.timedelta) -> type[Endless]:
    """Return what answers as ``localhost``, with a certificate that begins and ends so far from now."""
    now, trusted = datetime.datetime.now(datetime.UTC), trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trusted.issue_cert("localhost", not_before=now + begin, not_after=now + end).configure_cert(context)

    class Tls(Endless):
        root = trusted.cert_pem.bytes()

        def handle(self) -> None:
            with contextlib.suppress(OSError):
                context.wrap_socket(self.request, server_side=True)

    return Tls


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (_identity(-2 * _DAY, -_DAY), "its certificate has expired or is not valid yet, by the clock of this machine"),
        (_identity(_DAY, 2 * _DAY), "its certificate has expired or is not valid yet, by the clock of this machine"),
        (_identity(-_DAY, _DAY), "its certificate is not trusted; for a private CA, set acme_ca_bundle to its root"),
        (Plain, "no TLS version or cipher in common"),
    ],
    ids=["ended", "not begun", "unknown", "plain"],
)
def test_why_there_is_no_tls_is_said(tmp_path: Path, kind: type[Endless], said: str) -> None:
    """A clock that is wrong, a root that is missing, and a port that is another's are mended in three ways."""
    bundle = tmp_path / "root.pem"
    bundle.write_bytes(getattr(kind, "root", b"") if "expired" in said else trustme.CA().cert_pem.bytes())
    with serving(kind) as url, pytest.raises(IssuerUnavailable) as caught, problems.translated("ca"):
        client_of(url, str(bundle)).get(url)
    assert str(caught.value) == f"ca cannot be reached: {said}"


@pytest.mark.parametrize("ignored", [0, 1])
def test_request_that_is_lost_is_sent_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ignored: int) -> None:
    """A CA that answers on another connection is not down."""
    monkeypatch.setattr(Deaf, "ignored", ignored)
    monkeypatch.setattr(Deaf, "posts", 0)
    with trusting(tmp_path, Deaf, timeout=1.0) as (client, url):
        reply = client.post(url, Number(number=1), new_nonce_url=url)
    assert reply.json() == {}
    assert Deaf.posts == 1 + ignored


class Closing(Endless):
    """Closes its first connections where so many bytes of a reply were to follow, and answers on the others.

    ``closes`` has, for each of these connections, after how many requests it is closed, and what is sent before.
    """

    closes: tuple[tuple[int, bytes], ...] = ()
    resets = False
    asked: ClassVar[list[tuple[int, str]]] = []  # the number of the connection, and the method
    connections = 0

    def handle(self) -> None:
        type(self).connections += 1
        number = self.connections
        last, end = self.closes[number - 1] if number <= len(self.closes) else (math.inf, b"")
        for count in itertools.count(1):
            if not (asked := self.request.recv(65_536)):
                return
            self.asked.append((number, asked.split()[0].decode()))
            if count > last:
                break
            head = b"\r\nReplay-Nonce: bm9uY2UgMDAwMDAx\r\nContent-Length: 2\r\n\r\n"
            body = b"" if asked.startswith(b"HEAD") else b"{}"
            self.request.sendall(Endless.begin.replace(b"\r\n\r\n", head) + body)
        self.request.sendall(end)
        if self.resets:
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.request.close()


@pytest.fixture
def closing(monkeypatch: pytest.MonkeyPatch) -> type[Closing]:
    """The server of one test."""
    monkeypatch.setattr(Closing, "asked", [])
    monkeypatch.setattr(Closing, "connections", 0)
    return Closing


@pytest.mark.parametrize("resets", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_idle_connection_that_the_ca_closes_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closing: type[Closing], method: str, resets: bool
) -> None:
    """At the moment when a request is sent, so that it cannot be seen before; the request is sent once more."""
    monkeypatch.setattr(closing, "closes", ((1, b""),))
    monkeypatch.setattr(closing, "resets", resets)
    with trusting(tmp_path, closing) as (client, url):
        client.get(url)
        reply = client.get(url) if method == "GET" else client.post(url, Number(number=1), new_nonce_url=url)
    assert reply.json() == {}
    assert closing.asked == [(1, "GET"), (1, method), (2, method)]


def test_other_idle_connections_are_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closing: type[Closing]
) -> None:
    """A CA that closes one has closed them all: the second try is on a new one, and it is the last."""
    monkeypatch.setattr(closing, "closes", ((1, b""),) * 3)
    with trusting(tmp_path, closing) as (client, url):
        with ThreadPoolExecutor(3) as pool:
            together = threading.Barrier(3)
            received = deadline.BoundedSocket.recv_into

            def meet(self: deadline.BoundedSocket, *args: Any, **kwargs: Any) -> int:
                with contextlib.suppress(threading.BrokenBarrierError):
                    together.wait(5)
                return received(self, *args, **kwargs)

            with monkeypatch.context() as patch:
                patch.setattr(deadline.BoundedSocket, "recv_into", meet)
                list(pool.map(client.get, [url] * 3))
        reply = client.post(url, Number(number=1), new_nonce_url=url)
    assert reply.json() == {}
    (idle, _), (new, _) = closing.asked[3:]
    assert idle in (1, 2, 3)
    assert new == 4


@pytest.mark.parametrize(("method", "tries"), [("GET", 2), ("HEAD", 2), ("POST", 1)])
def test_only_what_changes_nothing_is_repeated_after_a_new_connection_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closing: type[Closing], method: str, tries: int
) -> None:
    """The CA may have taken what was posted (RFC 9110 section 9.2.2); and each request has two tries at most."""
    monkeypatch.setattr(closing, "closes", ((0, b""),) * 3)
    with trusting(tmp_path, closing) as (client, url), pytest.raises(requests.ConnectionError):
        client.session.request(method, url, timeout=5.0, verify=client.verify_ssl)
    assert [asked for _, asked in closing.asked] == [method] * tries


def test_port_that_resets_every_connection_is_asked_once() -> None:
    """A CA that is down costs one connection for all that wait for it."""
    with Chaos(free_port()) as dead:
        url = f"https://localhost:{dead.port}/dir"
        with pytest.raises(requests.ConnectionError):
            client_of(url).get(url)
        assert dead.connections == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_reply_that_had_begun_is_not_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closing: type[Closing], method: str
) -> None:
    """Then the connection was not idle."""
    monkeypatch.setattr(closing, "closes", ((1, b"HTTP/1.1 2"),))
    with trusting(tmp_path, closing) as (client, url):
        client.head(url)
        with pytest.raises(requests.ConnectionError):
            client.session.request(method, url, timeout=5.0, verify=client.verify_ssl)
    assert closing.asked == [(1, "HEAD"), (1, method)]


@pytest.mark.parametrize("resource", ["directory", "nonce", "account"])
def test_what_all_orders_wait_for_is_soon_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resource: str
) -> None:
    """One request that is lost must not fail them all: the CA answers on another connection."""
    monkeypatch.setattr("mitmproxy_acme.ca.http.network._FIRST_TRY", (0.3, 0.3))
    monkeypatch.setattr(Network, "_answers", lambda *_: pytest.fail("this was the patient try"))

    def lose_the_first(_: Reply) -> None:
        if ca.asked[resource] == 1:
            ca.closing.wait(60)

    with HostileCa(tmp_path / "ca") as ca:
        ca.change(resource, lose_the_first)
        client = Client.connect("ca", ca.directory, new_account_key(), str(ca.ca_bundle), 5.0)
        assert client.register("", None) == f"{ca.base}/account/1"
        assert ca.asked[resource] >= 2


@pytest.mark.parametrize(("whole", "kind"), [(False, Unfinished), (True, IssuerUnavailable)])
def test_request_that_is_ignored_is_the_failure_of_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool, kind: type[IssuanceError]
) -> None:
    """Nothing is known about others; if it belonged to no order (an account), all orders wait for it."""
    monkeypatch.setattr(Deaf, "ignored", 100)
    monkeypatch.setattr(Deaf, "posts", 0)
    with (
        trusting(tmp_path, Deaf, timeout=1.0) as (client, url),
        pytest.raises(kind, match=r"^ca does not answer one request, though it answers others$"),
        problems.translated("ca", whole=whole),
    ):
        client.post(url, Number(number=1), new_nonce_url=url)
    assert Deaf.posts == 2


def test_ca_that_is_silent_to_all_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent twice to it."""
    monkeypatch.setattr("mitmproxy_acme.ca.http.network._SECOND_CONNECTION", (0.2, 0.2))
    with (
        trusting(tmp_path, Mute, timeout=0.3) as (client, url),
        pytest.raises(IssuerUnavailable, match=r"^ca cannot be reached: it does not answer in time$"),
        problems.translated("ca"),
    ):
        client.post(url, Number(number=1), new_nonce_url=url)


def test_request_is_sent_in_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Header and body: each write is a record of TLS, and a system call."""
    monkeypatch.setattr(Deaf, "ignored", 0)
    writes: list[bytes] = []
    send = deadline.BoundedSocket.sendall

    def sendall(self: deadline.BoundedSocket, data: bytes) -> None:
        writes.append(bytes(data))
        send(self, data)

    monkeypatch.setattr(deadline.BoundedSocket, "sendall", sendall)
    with trusting(tmp_path, Deaf) as (client, url):
        client.post(url, Number(number=1), new_nonce_url=url)
    assert [write[:4] for write in writes] == [b"HEAD", b"POST"]
    assert b'"signature"' in writes[1]


def test_roots_are_read_again_only_if_their_file_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection does not wait for a hundred roots to be parsed, and a root that is replaced needs no restart."""
    reads, bundle, load = 0, tmp_path / "root.pem", ssl.SSLContext.load_verify_locations

    def count(context: ssl.SSLContext, *args: Any) -> None:
        nonlocal reads
        reads += 1
        load(context, *args)

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", count)
    bundle.write_bytes(trustme.CA().cert_pem.bytes())
    with HostileCa(tmp_path / "ca") as ca, Session() as session:

        def ask() -> int:
            for pool in session._pools.values():
                pool.close_idle()  # so that each request has a connection of its own
            return session.request("GET", ca.directory, timeout=5.0, verify=str(bundle)).status_code

        with pytest.raises(requests.exceptions.SSLError):
            ask()
        bundle.write_bytes(ca.ca_bundle.read_bytes())
        assert [ask() for _ in range(3)] == [200] * 3
        assert reads == 2
        bundle.unlink()
        with pytest.raises(requests.exceptions.SSLError):
            ask()
