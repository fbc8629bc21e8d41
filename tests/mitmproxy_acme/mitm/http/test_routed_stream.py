"""Where a request goes and what its upstream is told: mitmproxy's own layers, without sockets."""

from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy import connection, http
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events

from mitmproxy_acme.config.config import Config
from mitmproxy_acme.mitm.http.routed_stream import Streams, prepare_tls
from mitmproxy_acme.mitm.http.upstream_router import Refusal, UpstreamRouter
from tests.costs import cpu_seconds
from tests.mitmproxy_acme.mitm.http.open_layer import open_layer

OWN = ("up.test", 80)
A, B, C, WILD = ("a.internal", 8001), ("b.internal", 443), ("c.internal", 80), ("::1", 8003)
OPTIONS = {
    "acme_tos_accepted": True,
    "acme_domains": ("**.example.com",),
    "acme_certificates": ("203.0.113.7",),
    "acme_upstreams": (
        "a.example.com=http://a.internal:8001",
        "b.example.com=https://b.internal",
        "c.example.com=http://c.internal;host=public.test:81",
        "*.wild.example.com=http://[::1]:8003",
    ),
}


@pytest.mark.parametrize(
    ("mode", "address", "protocol", "prepared"),
    [
        ("reverse:http://up.test", B, "tcp", True),
        ("reverse:http3://up.test", B, "udp", True),
        ("reverse:http://up.test", A, "tcp", False),  # not over TLS
        ("reverse:http://up.test", OWN, "tcp", False),
        ("reverse:http://up.test", None, "tcp", False),
        ("reverse:tls://up.test:5", B, "tcp", False),
        ("regular", B, "tcp", False),
    ],
)
def test_certificate_of_an_upstream_is_checked_for_its_own_host(
    mode: str, address: tuple[str, int] | None, protocol: Any, prepared: bool
) -> None:
    """Not for the client's server name; and over TCP, for which no h3 is offered."""
    router = UpstreamRouter(Config.from_options(OPTIONS), lambda: 0.0)
    client, layer = open_layer(mode)
    client.transport_protocol = protocol
    server = connection.Server(address=address, sni="www.public.test", alpn_offers=[b"h3"])
    data: Any = SimpleNamespace(conn=server, context=layer.context)
    prepare_tls(None, data)
    assert (server.sni, server.alpn_offers) == ("www.public.test", [b"h3"])
    prepare_tls(router, data)
    assert server.sni == (address[0] if prepared and address else "www.public.test")
    assert server.alpn_offers == ([b"http/1.1"] if protocol == "udp" else [b"h3"])
    prepare_tls(router, SimpleNamespace(conn=client, context=layer.context))  # type: ignore[arg-type]
    assert client.sni is None


type Script = Callable[[http.HTTPFlow], None]


@pytest.fixture(autouse=True)
def streams() -> Iterator[Streams]:
    streams = Streams()
    streams.install(UpstreamRouter(Config.from_options(OPTIONS), lambda: 0.0))
    yield streams
    streams.uninstall()


class Client:
    """A client that has connected in a mode, a script in mitmproxy, and all upstreams, which never answer."""

    def __init__(
        self, mode: str = "reverse:http://up.test", scripts: Mapping[str, Script] = {}, *, keep_host: bool = False
    ) -> None:
        self._client, self._layer = open_layer(mode)
        self._layer.context.options.update(keep_host_header=keep_host)
        self._scripts = scripts
        self.reply = b""
        self.opened: list[connection.Server] = []
        self.sent: dict[tuple[str, int], bytes] = {}
        self._do(events.Start())

    def sends(self, data: bytes) -> bytes:
        """Return what the proxy replies to this."""
        self.reply = b""
        self._do(events.DataReceived(self._client, data))
        return self.reply

    def answers(self, server: connection.Server, data: bytes) -> bytes:
        """Have an upstream send this; return what reaches the client."""
        self.reply = b""
        self._do(events.DataReceived(server, data))
        return self.reply

    def destination(self, head: str) -> tuple[str, int] | int:
        """Send a request and return where it went, or the status of the refusal."""
        before = len(self.opened)
        reply = self.sends(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        if reply:
            assert len(self.opened) == before
            return int(reply.split()[1])
        address = self.opened[-1].address
        assert address is not None
        return address

    def _do(self, event: events.Event) -> None:
        for command in list(self._layer.handle_event(event)):
            self._obey(command)

    def _obey(self, command: commands.Command) -> None:
        if isinstance(command, commands.StartHook):
            if script := self._scripts.get(command.name):
                script(*command.args())
            self._do(events.HookCompleted(command, None))
        elif isinstance(command, commands.OpenConnection):
            command.connection.state = ConnectionState.OPEN
            self.opened.append(command.connection)
            self._do(events.OpenConnectionCompleted(command, None))
        elif isinstance(command, commands.SendData):
            if command.connection is self._client:
                self.reply += command.data
            else:
                address = command.connection.address  # type: ignore[attr-defined]  # it is a server's
                self.sent[address] = self.sent.get(address, b"") + command.data


@pytest.mark.parametrize(
    ("head", "destination"),
    [
        ("GET / HTTP/1.1\nHost: a.example.com", A),
        ("GET / HTTP/1.1\nHost: A.Example.COM.:8443", A),
        ("GET / HTTP/1.0\nHost: a.example.com", A),
        ("GET / HTTP/1.1\nHost: x.wild.example.com", WILD),
        ("GET / HTTP/1.1\nHost: other.example.com", OWN),
        ("GET / HTTP/1.1\nHost: 203.0.113.7", OWN),
        ("GET http://a.example.com/ HTTP/1.1\nHost: other.example.com", A),
        ("GET http://elsewhere.test/ HTTP/1.1\nHost: a.example.com", 421),
        ("OPTIONS * HTTP/1.1\nHost: a.example.com", A),
        ("GET / HTTP/1.1\nHost: elsewhere.test", 421),
        ("GET / HTTP/1.1\nHost: 203.0.113.8", 421),
        ("GET / HTTP/1.1\nHost: a.example.com@elsewhere.test", 421),
        ("GET / HTTP/1.1\nHost: a.example.com, b.example.com", 421),
        ("GET / HTTP/1.1", 400),
        ("GET / HTTP/1.0", 400),
        ("GET / HTTP/1.1\nHost:", 400),
        ("GET / HTTP/1.1\nHost: a.example.com\nHost: other.example.com", 400),
    ],
)
def test_destination(head: str, destination: tuple[str, int] | int) -> None:
    assert Client().destination(head) == destination


@given(st.binary(max_size=300).filter(lambda host: not set(host) & set(b"\r\n")))
def test_any_host_is_routed_or_refused(host: bytes) -> None:
    """Whatever bytes a stranger sends: an exception here would be a traceback in the log."""
    client = Client()
    reply = client.sends(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    assert reply[9:12] in (b"400", b"421") or client.opened


def test_https_upstream_is_reached_over_tls() -> None:
    """The name in its certificate must be the URL's, not the client's."""
    client = Client()
    assert client.destination("GET / HTTP/1.1\nHost: b.example.com") == B
    assert client.opened[0].tls
    assert client.opened[0].sni == "b.internal"


@pytest.mark.parametrize(
    ("head", "sent"),
    [
        ("GET /x HTTP/1.1\nHost: A.example.com:8443", b"GET /x HTTP/1.1\r\nHost: A.example.com:8443\r\n\r\n"),
        (
            "GET http://a.example.com/x HTTP/1.1\nHost: other.example.com",
            b"GET /x HTTP/1.1\r\nHost: a.example.com\r\n\r\n",
        ),
        ("GET http://a.example.com/x HTTP/1.0", b"GET /x HTTP/1.0\r\nHost: a.example.com\r\n\r\n"),
    ],
)
@pytest.mark.parametrize("keep_host", [False, True])
def test_upstream_of_an_entry_gets_the_clients_host(head: str, sent: bytes, keep_host: bool) -> None:
    """With and without keep_host_header, and always the host that decided."""
    client = Client(keep_host=keep_host)
    assert client.destination(head) == A
    assert client.sent[A] == sent


def test_entry_may_set_the_host_that_its_upstream_gets() -> None:
    """The client's host decides about the route all the same."""
    client = Client()
    assert client.destination("GET /x HTTP/1.1\nHost: c.example.com") == C
    assert client.sent[C] == b"GET /x HTTP/1.1\r\nHost: public.test:81\r\n\r\n"


@pytest.mark.parametrize(("keep_host", "host"), [(False, b"up.test"), (True, b"other.example.com")])
def test_own_upstream_gets_what_mitmproxy_sends(keep_host: bool, host: bytes) -> None:
    client = Client(keep_host=keep_host)
    assert client.destination("GET http://other.example.com/ HTTP/1.1\nHost: a.example.com") == OWN
    assert client.sent[OWN] == b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"


def test_each_request_of_a_connection_is_routed_by_itself() -> None:
    """And a connection to an upstream is used again for its own hosts only."""
    client = Client()
    hosts = ("a.example.com", "other.example.com", "elsewhere.test", "a.example.com")
    done = list[object]()
    for host in hosts:
        reply = client.sends(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        if reply:
            done.append(int(reply.split()[1]))
            continue
        server = client.opened[0] if host == "a.example.com" else client.opened[-1]
        assert client.answers(server, b"HTTP/1.1 204 No Content\r\n\r\n").startswith(b"HTTP/1.1 204")
        done.append(server.address)
    assert done == [A, OWN, 421, A]
    assert [server.address for server in client.opened] == [A, OWN]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_connection_goes_on_after_a_refusal(method: str) -> None:
    """The reply has a length, and none of its body where a HEAD asked."""
    client = Client()
    body = b"Content-Length: 3\r\n\r\nabc" if method == "POST" else b"\r\n"
    reply = client.sends(f"{method} / HTTP/1.1\r\nHost: elsewhere.test\r\n".encode() + body)
    head, _, text = reply.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 421 Misdirected Request\r\n")
    assert text == (b"" if method == "HEAD" else b"Misdirected Request: this server has no site of that name\n")
    assert f"content-length: {58}".encode() in head.lower()
    assert client.destination("GET / HTTP/1.1\nHost: a.example.com") == A


def test_streamed_request_is_refused_at_once() -> None:
    """Its body is read and dropped, and the next request is handled."""

    def stream(flow: http.HTTPFlow) -> None:
        flow.request.stream = True

    client = Client(scripts={"requestheaders": stream})
    reply = client.sends(b"POST / HTTP/1.1\r\nHost: elsewhere.test\r\nContent-Length: 6\r\n\r\nabc")
    assert reply.startswith(b"HTTP/1.1 421 ")
    assert client.sends(b"def") == b""
    assert client.destination("GET / HTTP/1.1\nHost: a.example.com") == A


def test_script_that_answers_wins() -> None:
    def answer(flow: http.HTTPFlow) -> None:
        flow.response = http.Response.make(418)

    assert Client(scripts={"request": answer}).destination("GET / HTTP/1.1\nHost: elsewhere.test") == 418


@pytest.mark.parametrize("event", ["requestheaders", "request"])
@pytest.mark.parametrize("host", ["a.example.com", "other.example.com", "elsewhere.test"])
def test_script_that_redirects_wins(event: str, host: str) -> None:
    """For an entry, for the mode's own upstream, and for a host that would be refused."""

    def redirect(flow: http.HTTPFlow) -> None:
        flow.request.host, flow.request.port = "script.internal", 9000

    client = Client(scripts={event: redirect})
    assert client.destination(f"GET / HTTP/1.1\nHost: {host}") == ("script.internal", 9000)


def test_script_that_changes_the_host_header_only_is_not_routed_again() -> None:
    def rename(flow: http.HTTPFlow) -> None:
        flow.request.headers["Host"] = "b.example.com"

    assert Client(scripts={"requestheaders": rename}).destination("GET / HTTP/1.1\nHost: a.example.com") == A


def test_scripts_see_the_clients_host() -> None:
    seen = []

    def look(flow: http.HTTPFlow) -> None:
        seen.append((flow.request.pretty_host, flow.request.host, flow.server_conn.address))

    client = Client(scripts={"requestheaders": look})
    for host in ("a.example.com", "elsewhere.test"):
        client.sends(f"HEAD / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        if host == "a.example.com":
            client.answers(client.opened[0], b"HTTP/1.1 204 No Content\r\n\r\n")
    assert seen == [("a.example.com", "a.internal", A), ("elsewhere.test", "up.test", OWN)]


def test_killed_flow_is_not_answered() -> None:
    def kill(flow: http.HTTPFlow) -> None:
        flow.kill()  # type: ignore[no-untyped-call]

    assert Client(scripts={"responseheaders": kill}).sends(b"GET / HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n") == b""


@pytest.mark.parametrize("mode", ["regular", "upstream:http://up.test", "socks5", "transparent"])
def test_other_modes_are_left_alone(mode: str) -> None:
    client = Client(mode)
    assert client.destination("GET / HTTP/1.1\nHost: a.example.com") == OWN


def test_without_entries_every_host_reaches_the_modes_upstream(streams: Streams) -> None:
    streams.install(None)
    assert Client().destination("GET / HTTP/1.1\nHost: elsewhere.test") == OWN
    streams.uninstall()
    assert Client().destination("GET / HTTP/1.1\nHost: elsewhere.test") == OWN


def test_changed_entries_are_for_the_next_request(streams: Streams) -> None:
    """Also on a connection that is open already."""
    client = Client()
    assert client.destination("GET / HTTP/1.1\nHost: a.example.com") == A
    client.answers(client.opened[0], b"HTTP/1.1 204 No Content\r\n\r\n")
    changed = Config.from_options(OPTIONS | {"acme_upstreams": ("a.example.com=http://new.internal",)})
    streams.install(UpstreamRouter(changed, lambda: 0.0))
    assert client.destination("GET / HTTP/1.1\nHost: a.example.com") == ("new.internal", 80)


def test_refusals_are_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    router = UpstreamRouter(Config.from_options(OPTIONS), lambda: 0.0)
    with caplog.at_level("INFO", "mitmproxy_acme"):
        for _ in range(3):
            router.report(Refusal.MISDIRECTED, "x" * 500)
    [line] = [record.getMessage() for record in caplog.records]
    assert len(line) < 300


def test_routing_costs_little() -> None:
    """A microsecond or so for a listed name; a few for the longest unknown one."""
    router = UpstreamRouter(Config.from_options(OPTIONS), lambda: 0.0)
    unknown = "a." * 125 + "com"
    assert cpu_seconds(lambda: [router.find("a.example.com") for _ in range(1_000)]) < 0.01
    assert cpu_seconds(lambda: [router.find(unknown) for _ in range(1_000)]) < 0.2
