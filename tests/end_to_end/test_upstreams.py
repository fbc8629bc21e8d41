"""acme_upstreams: real clients of every protocol, real upstreams, and each request at the site that it names."""

import asyncio
import contextlib
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import pytest
from aioquic.asyncio.client import connect
from aioquic.h3.connection import H3_ALPN
from aioquic.quic.configuration import QuicConfiguration
from wsproto import ConnectionType, WSConnection
from wsproto import events as ws
from wsproto.frame_protocol import CloseReason

from tests.end_to_end.client import eventually, get, handshake
from tests.end_to_end.conftest import StartProxy
from tests.end_to_end.test_modes import CHALLENGES, GET, TOKEN, H3Client, Head, ask
from tests.servers.base import free_port, is_open
from tests.servers.ca import ThrowawayCA
from tests.servers.mitmdump import Mitmdump
from tests.servers.upstream import Upstream

FreshName = Callable[[], str]


class SilentServer:
    """The mode's own upstream where no connection may arrive: it listens, and accepts none."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def has_connection(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            self._socket.accept()[0].close()
            return True
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def silent() -> Iterator[SilentServer]:
    with contextlib.closing(SilentServer()) as server:
        yield server


@pytest.fixture
def site_a() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture
def site_b() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


def curl(running: Mitmdump, name: str, root: Path, *words: str, port: int = 0) -> tuple[int, str]:
    """Fetch with curl, which resolves all names to the proxy; return the status and the body."""
    command = [
        *("curl", "--silent", "--show-error", "--max-time", "30", "--noproxy", "*", "--cacert", str(root)),
        *("--connect-to", f"::127.0.0.1:{port or running.https_port}", "--write-out", "\n%{http_code}", *words),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


@pytest.fixture
def root_file(root: str, tmp_path: Path) -> Path:
    path = tmp_path / "root.pem"
    path.write_text(root)
    return path


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_each_host_reaches_its_upstream(
    proxy: StartProxy,
    silent: SilentServer,
    site_a: Upstream,
    site_b: Upstream,
    root_file: Path,
    fresh_name: FreshName,
    version: str,
) -> None:
    """Over TLS and on port 80, with the client's Host; nothing connects to the mode's own upstream."""
    a, b = fresh_name(), f"www.{fresh_name()}"
    entries = [f"{a}={site_a.url}", f"*.{b.partition('.')[2]}={site_b.url}"]
    running = proxy(start=False, acme_upstreams=entries)
    running.upstream = silent.url
    running.start()

    assert curl(running, a, root_file, version, f"https://{a}/1")[0] == 200
    assert curl(running, b, root_file, version, f"https://{b}/2")[0] == 200
    assert curl(running, b, root_file, f"http://{b.upper()}/3", port=running.http_port)[0] == 200
    assert site_a.requests == [f"GET {a} /1"]
    assert site_b.requests == [f"GET {b} /2", f"GET {b.upper()} /3"]
    assert not silent.has_connection()


def test_other_hosts_go_to_the_modes_upstream_or_nowhere(
    proxy: StartProxy, upstream: Upstream, site_a: Upstream, root: str, root_file: Path, fresh_name: FreshName
) -> None:
    """An allowed name without an entry to the mode's own upstream; a foreign one gets 421, also below a good SNI."""
    a, other = fresh_name(), fresh_name()
    running = proxy(acme_upstreams=[f"{a}={site_a.url}"])
    before = len(upstream.requests)

    assert "hello from upstream /own" in get(running.https_port, other, root, "/own")
    assert upstream.requests[before:] == [f"GET 127.0.0.1:{upstream.port} /own"]
    foreign = ("--header", "Host: elsewhere.test")
    refused = (421, "Misdirected Request: this server has no site of that name\n")
    for words in (("--http1.1", *foreign), ("--http2", *foreign)):
        assert curl(running, a, root_file, *words, f"https://{a}/foreign") == refused
    assert curl(running, a, root_file, "http://elsewhere.test/foreign", port=running.http_port) == refused
    assert site_a.requests == []
    assert len(upstream.requests) == before + 1
    eventually(lambda: "refused 1 request(s) for hosts that neither acme_upstreams" in running.log_text())


def test_keep_alive_with_changing_hosts(
    proxy: StartProxy, site_a: Upstream, site_b: Upstream, root: str, root_file: Path, fresh_name: FreshName
) -> None:
    """One HTTP/1 connection to the proxy, its requests at two sites in turn, and one refused in between."""
    a, b = fresh_name(), fresh_name()
    running = proxy(acme_upstreams=[f"{a}={site_a.url}", f"{b}={site_b.url}"])
    context = ssl.create_default_context(cadata=root)
    replies = []
    with (
        socket.create_connection(("127.0.0.1", running.https_port), 30) as plain,
        context.wrap_socket(plain, server_hostname=a) as secure,
        secure.makefile("rb") as reader,
    ):
        for host in (a, b, "elsewhere.test", b, a):
            secure.sendall(f"GET /from-{host} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            status, length = reader.readline().split()[1], 0
            while (line := reader.readline().strip()) != b"":
                length = int(line.split()[1]) if line.lower().startswith(b"content-length") else length
            replies.append((status, reader.read(length)))

    assert [status for status, _ in replies] == [b"200", b"200", b"421", b"200", b"200"]
    assert site_a.requests == [f"GET {a} /from-{a}"] * 2
    assert site_b.requests == [f"GET {b} /from-{b}"] * 2


def test_one_http2_connection_for_two_sites(
    proxy: StartProxy, site_a: Upstream, site_b: Upstream, root: str, fresh_name: FreshName
) -> None:
    """Browsers use a connection again for each name of its certificate; all requests are sent at once here."""
    a, b = fresh_name(), fresh_name()
    running = proxy(acme_upstreams=[f"{a}={site_a.url}", f"{b}={site_b.url}"])
    hosts = [a, b, a, "elsewhere.test", b]
    context = ssl.create_default_context(cadata=root)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", running.https_port), 30) as plain,
        context.wrap_socket(plain, server_hostname=a) as secure,
    ):
        statuses = get_h2(secure, *([(":authority", host)] for host in hosts))

    assert statuses == [200, 200, 200, 421, 200]
    assert site_a.requests == [f"GET {a} /"] * 2
    assert site_b.requests == [f"GET {b} /"] * 2


def get_h2(secure: ssl.SSLSocket, *heads: Head, client: h2.connection.H2Connection | None = None) -> list[int]:
    """Send a request with each of these heads, then read; return the statuses in the order of the requests."""
    client = client or h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    if client.get_next_available_stream_id() == 1:
        client.initiate_connection()
    for head in heads:
        client.send_headers(client.get_next_available_stream_id(), [*GET, *head], end_stream=True)
    statuses, ended = dict[int | None, int](), set[int | None]()
    while len(ended) < len(heads):
        secure.sendall(client.data_to_send())
        chunk = secure.recv(65_536)
        assert chunk, "the proxy hung up"
        for event in client.receive_data(chunk):
            if isinstance(event, h2.events.ResponseReceived):
                statuses[event.stream_id] = int(dict(event.headers or ())[b":status"])
            elif isinstance(event, h2.events.StreamEnded):
                ended.add(event.stream_id)
    return [status for _, status in sorted(statuses.items(), key=lambda item: item[0] or 0)]


def test_restarted_upstream_is_found_again(proxy: StartProxy, root: str, fresh_name: FreshName) -> None:
    """On the connection that met it while it was down; mitmproxy alone remembers the error as long as that lasts."""
    name, port = fresh_name(), free_port()
    running = proxy(acme_upstreams=[f"{name}=http://127.0.0.1:{port}"])
    context = ssl.create_default_context(cadata=root)
    context.set_alpn_protocols(["h2"])
    head = [(":authority", name)]
    with (
        socket.create_connection(("127.0.0.1", running.https_port), 30) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        assert get_h2(secure, head, client=client) == [502]
        with Upstream(port):
            assert get_h2(secure, head, client=client) == [200]


async def test_http3(
    proxy: StartProxy,
    silent: SilentServer,
    site_a: Upstream,
    root: str,
    fresh_name: FreshName,
    tmp_path: Path,
) -> None:
    """In reverse:https and reverse:http3, to an HTTP and an HTTPS upstream over TCP, for both sites at once."""
    a, b, http3_port = fresh_name(), fresh_name(), free_port()
    with Upstream(tls=ThrowawayCA(tmp_path / "upstream").server_context()) as site_b:
        running = proxy(
            start=False,
            ssl_verify_upstream_trusted_ca=str(tmp_path / "upstream" / "ca.pem"),
            acme_upstreams=[f"{a}={site_a.url}", f"{b}={site_b.url}"],
        )
        running.upstream = silent.url.replace("http:", "https:")
        own = silent.url.replace("http:", "http3:")
        running.extra_arguments += ["--mode", f"reverse:{own}@127.0.0.1:{http3_port}"]
        running.start()
        for port in (running.https_port, http3_port):
            async with http3_client(port, a, root) as client:
                hosts = [a, b, a, "elsewhere.test", b]
                assert await client.get_all(*([(":authority", host)] for host in hosts)) == [200, 200, 200, 421, 200]
                # Another Host beside :authority: the site gets the one that decided.
                assert await client.get_all([(":authority", a), ("host", b)]) == [200]
    assert site_a.requests == [f"GET {a} /"] * 6
    assert site_b.requests == [f"GET {b} /"] * 4
    assert not silent.has_connection()


@contextlib.asynccontextmanager
async def http3_client(port: int, name: str, root: str) -> AsyncIterator[H3Client]:
    configuration = QuicConfiguration(
        is_client=True, alpn_protocols=H3_ALPN, server_name=name, cadata=root.encode(), verify_mode=ssl.CERT_REQUIRED
    )
    async with (
        asyncio.timeout(30),
        connect("127.0.0.1", port, configuration=configuration, create_protocol=H3Client) as client,
    ):
        assert isinstance(client, H3Client)
        yield client


async def test_http2_upstream(proxy: StartProxy, root: str, fresh_name: FreshName, tmp_path: Path) -> None:
    """Two names at one upstream share a connection to it, over which it gets the authority of each request."""
    a, b, ca = fresh_name(), fresh_name(), ThrowawayCA(tmp_path / "upstream")
    context, upstream = ca.server_context(), Http2Upstream()
    context.set_alpn_protocols(["h2"])
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, ssl=context)
    async with server:
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
        running = proxy(ssl_verify_upstream_trusted_ca=str(ca.bundle), acme_upstreams=[f"{a}={url}", f"{b}={url}"])
        statuses = await asyncio.to_thread(fetch_h2, running.https_port, a, root, [a, b, a])
    assert statuses == [200, 200, 200]
    assert sorted(upstream.authorities) == sorted([a, b, a])
    assert upstream.connections == 1


def fetch_h2(port: int, name: str, root: str, hosts: list[str]) -> list[int]:
    context = ssl.create_default_context(cadata=root)
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port), 30) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        return get_h2(secure, *([(":authority", host)] for host in hosts))


class Http2Upstream:
    """Answers each request with 200, and records what it was asked for."""

    def __init__(self) -> None:
        self.connections = 0
        self.authorities: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        server.initiate_connection()
        while True:
            writer.write(server.data_to_send())
            if not (data := await reader.read(65_536)):
                break
            for event in server.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    fields = dict(event.headers or ())
                    self.authorities.append(fields[b":authority"].decode())
                    server.send_headers(event.stream_id or 0, [(":status", "200")], end_stream=True)
        writer.close()


def test_replayed_flow_goes_where_it_went(
    proxy: StartProxy, site_a: Upstream, root: str, fresh_name: FreshName, tmp_path: Path
) -> None:
    """With the Host that its upstream got, which mitmproxy replaces in other replayed flows of reverse mode."""
    name, other, saved = fresh_name(), fresh_name(), tmp_path / "flows"
    entries = [f"{name}={site_a.url}", f"{other}={site_a.url};host=inner.test"]
    running = proxy(acme_upstreams=entries, save_stream_file=str(saved))
    for host in (name, other):
        assert get(running.https_port, host, root, "/once").startswith("HTTP/1.1 200 ")
    running.stop()
    proxy(acme_upstreams=entries, client_replay=[str(saved)], keepserving=True)
    eventually(lambda: site_a.requests == [f"GET {name} /once", "GET inner.test /once"] * 2)


async def test_websocket(proxy: StartProxy, root: str, fresh_name: FreshName) -> None:
    """The handshake and the messages reach the upstream of the host."""
    name = fresh_name()
    server = await asyncio.start_server(echo_websocket, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        running = proxy(acme_upstreams=[f"{name}=http://127.0.0.1:{port}"])
        assert await asyncio.to_thread(send_over_websocket, running.https_port, name, root) == f"{name} said hello"


async def echo_websocket(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send each message back, with the host that was asked for before it."""
    server, host = WSConnection(ConnectionType.SERVER), ""
    while data := await reader.read(65_536):
        server.receive_data(data)
        for event in server.events():
            if isinstance(event, ws.Request):
                host = event.host
                writer.write(server.send(ws.AcceptConnection()))
            elif isinstance(event, ws.TextMessage):
                writer.write(server.send(ws.TextMessage(f"{host} said {event.data}")))
            elif isinstance(event, ws.CloseConnection):
                writer.write(server.send(event.response()))
    writer.close()


def send_over_websocket(port: int, name: str, root: str) -> str:
    context, client = ssl.create_default_context(cadata=root), WSConnection(ConnectionType.CLIENT)
    with (
        socket.create_connection(("127.0.0.1", port), 30) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        secure.sendall(client.send(ws.Request(host=name, target="/chat")))
        while data := secure.recv(65_536):
            client.receive_data(data)
            for event in client.events():
                if isinstance(event, ws.AcceptConnection):
                    secure.sendall(client.send(ws.TextMessage("hello")))
                elif isinstance(event, ws.TextMessage):
                    secure.sendall(client.send(ws.CloseConnection(CloseReason.NORMAL_CLOSURE)))
                    return event.data
    raise AssertionError("the proxy hung up")


def test_challenges_are_answered_under_any_entry(
    proxy: StartProxy, site_a: Upstream, root: str, fresh_name: FreshName
) -> None:
    """A name whose site is down gets its certificate, and an unknown token gets our 404 whatever the host."""
    a, dead = fresh_name(), fresh_name()
    running = proxy(acme_upstreams=[f"{a}={site_a.url}", f"{dead}=http://127.0.0.1:{free_port()}"])

    assert handshake(running.https_port, a, root).names == [a]
    assert handshake(running.https_port, dead, root).names == [dead]
    for host in (a, dead, "elsewhere.test"):
        reply = ask(running.http_port, CHALLENGES + TOKEN, host=host)
        assert (reply.status, reply.body) == (404, b"Not found\n")
    assert site_a.requests == []


def test_dead_upstream_is_a_bad_gateway_for_its_hosts_alone(
    proxy: StartProxy, site_a: Upstream, root: str, fresh_name: FreshName
) -> None:
    """Also with acme_lazy=false: which upstream a client needs is known with its request."""
    a, dead, own = fresh_name(), fresh_name(), fresh_name()
    running = proxy(
        start=False, acme_lazy=False, acme_upstreams=[f"{a}={site_a.url}", f"{dead}=http://127.0.0.1:{free_port()}"]
    )
    running.upstream = f"http://127.0.0.1:{free_port()}"
    running.start()

    assert get(running.https_port, a, root).startswith("HTTP/1.1 200 ")
    for name in (dead, own):
        assert get(running.https_port, name, root).startswith("HTTP/1.1 502 ")
    assert len(site_a.requests) == 1


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_https_upstream_is_verified_by_the_host_of_its_url(
    proxy: StartProxy, root_file: Path, fresh_name: FreshName, tmp_path: Path, version: str
) -> None:
    """By name, with that name in the SNI, and by address; another name, or another CA, is a bad gateway."""
    ca, asked = ThrowawayCA(tmp_path / "upstream"), list[str | None]()
    context = ca.server_context()
    context.sni_callback = lambda _, name, __: asked.append(name)
    foreign = ThrowawayCA(tmp_path / "foreign").server_context()
    misnamed = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    misnamed.load_cert_chain(*ca.issue("other.internal"))
    by_name, by_address, wrong_ca, wrong_name = (fresh_name() for _ in range(4))
    with Upstream(tls=context) as good, Upstream(tls=foreign) as strange, Upstream(tls=misnamed) as renamed:
        running = proxy(
            ssl_verify_upstream_trusted_ca=str(ca.bundle),
            keep_host_header=True,
            acme_upstreams=[
                f"{by_name}=https://localhost:{good.port}",
                f"{by_address}=https://127.0.0.1:{good.port}",
                f"{wrong_ca}={strange.url}",
                f"{wrong_name}={renamed.url}",
            ],
        )
        fetched = {
            name: curl(running, name, root_file, version, f"https://{name}/")[0]
            for name in (by_name, by_address, wrong_ca, wrong_name)
        }
        assert list(fetched.values()) == [200, 200, 502, 502]
        assert asked == ["localhost", None]
        assert good.requests == [f"GET {by_name} /", f"GET {by_address} /"]
        assert strange.requests == renamed.requests == []


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_other_addons_of_mitmproxy_count(
    proxy: StartProxy,
    site_a: Upstream,
    site_b: Upstream,
    root_file: Path,
    fresh_name: FreshName,
    tmp_path: Path,
    version: str,
) -> None:
    """modify_headers sets another Host, map_remote another upstream and path, map_local needs no upstream at all."""
    a, page = fresh_name(), tmp_path / "page.txt"
    page.write_text("of a file")
    running = proxy(
        acme_upstreams=[f"{a}={site_a.url}"],
        modify_headers=["|~u renamed|Host|inner.test"],
        map_remote=[f"|http://{a}/moved|{site_b.url}/deeper"],
        map_local=[f"|{a}/local|{page}", f"|elsewhere.test/local|{page}"],
    )
    fetched = [curl(running, a, root_file, version, f"https://{a}/{path}") for path in ("renamed", "moved/x", "local")]
    foreign = curl(running, a, root_file, version, "--header", "Host: elsewhere.test", f"https://{a}/local")

    assert [status for status, _ in fetched] == [200, 200, 200]
    assert fetched[-1] == foreign == (200, "of a file")
    assert site_a.requests == ["GET inner.test /renamed"]
    assert [request.split()[-1] for request in site_b.requests] == ["/deeper/x"]


def test_unverified_upstream_with_ssl_insecure(
    proxy: StartProxy, root: str, fresh_name: FreshName, tmp_path: Path
) -> None:
    name = fresh_name()
    with Upstream(tls=ThrowawayCA(tmp_path / "foreign").server_context()) as strange:
        running = proxy(ssl_insecure=True, acme_upstreams=[f"{name}={strange.url}"])
        assert get(running.https_port, name, root).startswith("HTTP/1.1 200 ")


def test_same_https_upstream_of_mode_and_entry(
    proxy: StartProxy, root: str, fresh_name: FreshName, tmp_path: Path
) -> None:
    """With keep_host_header mitmproxy asks the mode's upstream for the client's name; an entry's URL has its own."""
    ca, name, other = ThrowawayCA(tmp_path / "upstream"), fresh_name(), fresh_name()
    with Upstream(tls=ca.server_context()) as secure:
        running = proxy(
            start=False,
            ssl_verify_upstream_trusted_ca=str(ca.bundle),
            keep_host_header=True,
            acme_upstreams=[f"{name}={secure.url}"],
        )
        running.upstream = secure.url
        running.start()
        for host in (name, other):
            assert get(running.https_port, host, root).startswith("HTTP/1.1 200 ")
        assert secure.requests == [f"GET {name} /", f"GET {other} /"]


def test_entries_without_effect_are_reported_at_the_start(proxy: StartProxy) -> None:
    """A mode that cannot route, and a host that may have no certificate."""
    running = proxy(start=False, acme_challenges=["tls-alpn-01"])
    running.upstream = f"tcp://127.0.0.1:{free_port()}"
    running.ready = lambda: is_open(running.http_port)  # type: ignore[method-assign]  # it answers nothing
    running.options["acme_upstreams"] = ["a.elsewhere.test=http://127.0.0.1:1"]
    running.start()
    eventually(lambda: "acme_upstreams has no effect in mode reverse:tcp://" in running.log_text())
    eventually(lambda: "acme_upstreams: no option allows a certificate for a.elsewhere.test, so" in running.log_text())


def test_wrong_entry_ends_the_start(proxy: StartProxy) -> None:
    running = proxy(start=False, acme_upstreams=["a.example.test=http://me:hunter2@127.0.0.1/"])
    log = running.fail_to_start()
    assert "acme_upstreams: the URL of a.example.test has a user name or password" in log
    assert "hunter2" not in log
