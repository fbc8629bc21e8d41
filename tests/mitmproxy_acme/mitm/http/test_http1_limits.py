"""How much of a request's head is read over HTTP/1: mitmproxy's own layers, without sockets."""

from collections.abc import Iterator

import h11
import pytest
from h11._readers import ChunkedReader, ContentLengthReader
from h11._receivebuffer import ReceiveBuffer
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http._http1 import TBodyReader

from mitmproxy_acme.core.token_bucket import TokenBucket
from mitmproxy_acme.mitm.http.http1_limits import Http1Limits, JoinedBodyReader
from tests.costs import cpu_seconds
from tests.mitmproxy_acme.mitm.http.open_layer import open_layer

LINE = b"a: b\r\n"


@pytest.fixture(autouse=True)
def heads() -> Iterator[None]:
    bounded = Http1Limits()
    bounded.install()
    yield
    bounded.uninstall()


class Client:
    """A client that has connected in a mode, and mitmproxy's layer for its requests."""

    def __init__(self, mode: str = "reverse:http://up.test") -> None:
        self._client, self._layer = open_layer(mode)
        self._do(events.Start())

    def sends(self, data: bytes) -> bytes:
        """Return the reply."""
        said = self._do(events.DataReceived(self._client, data))
        return b"".join(command.data for command in said if isinstance(command, commands.SendData))

    def waits(self) -> bool:
        """Say whether a hook was called: mitmproxy has the head of a request."""
        return any(isinstance(command, commands.StartHook) for command in self.said)

    def closes(self) -> bool:
        """Say whether the connection was closed."""
        return any(isinstance(command, commands.CloseConnection) for command in self.said)

    def _do(self, event: events.Event) -> list[commands.Command]:
        self.said = list(self._layer.handle_event(event))
        return self.said


@pytest.mark.parametrize("piece", [b"a" * 65_535, LINE * 10_000, LINE])
def test_endless_head_ends(piece: bytes) -> None:
    """Beyond 64 KB the client gets 431, and nothing more is read."""
    client = Client()
    reply = client.sends(b"GET / HTTP/1.1\r\n")
    sent = 0
    while not reply:
        assert sent < 200_000
        reply = client.sends(piece)
        sent += len(piece)
    assert reply.startswith(b"HTTP/1.1 431 ")
    assert client.closes()
    assert client.sends(b"\r\n\r\n") == b""
    assert not client.waits()


@pytest.mark.parametrize("ending", [b"\r\n", b"\n"])
def test_long_head_with_a_body_is_read(ending: bytes) -> None:
    """The body may begin in the same piece, and have any length."""
    client = Client()
    head = b"POST / HTTP/1.1\r\nContent-Length: 1000000\r\n" + b"a: " + b"b" * 60_000 + b"\r\n"
    assert client.sends(head + ending + b"x" * 100_000) == b""
    assert client.waits()


def test_other_modes_are_left_alone() -> None:
    """The users of a forward proxy are not strangers."""
    client = Client("regular")
    for _ in range(3):
        assert client.sends(b"GET / HTTP/1.1\r\n" + b"a" * 65_535) == b""


def test_head_costs_little() -> None:
    """20 MB of header lines on one connection took seconds."""

    def send() -> None:
        client = Client()
        client.sends(b"GET / HTTP/1.1\r\n")
        for _ in range(300):
            client.sends(LINE * 10_000)
        client.sends(b"\r\n")

    assert cpu_seconds(send, times=2) < 0.5


def joined(reader: TBodyReader) -> JoinedBodyReader:
    return JoinedBodyReader(reader, TokenBucket(2_000, 0.0, lambda: 0.0))


def events_of(reader: JoinedBodyReader, *pieces: bytes) -> list[object]:
    """Return the data, or the type, of each event, as pieces arrive."""
    buffer, said = ReceiveBuffer(), list[object]()
    for piece in pieces:
        buffer += piece
        while (event := reader(buffer)) is not None and h11.EndOfMessage not in said:
            said.append(bytes(event.data) if isinstance(event, h11.Data) else type(event))
    return said


def test_small_chunks_are_one_piece() -> None:
    """All that arrives together is one event, and the end is not lost."""
    chunks = b"1\r\na\r\n" * 1_000
    assert events_of(joined(ChunkedReader()), chunks, chunks + b"0\r\n\r\n") == [
        b"a" * 1_000,
        b"a" * 1_000,
        h11.EndOfMessage,
    ]
    assert events_of(joined(ContentLengthReader(5)), b"ab", b"cde") == [b"ab", b"cde", h11.EndOfMessage]
    with pytest.raises(h11.ProtocolError):
        events_of(joined(ChunkedReader()), b"1\r\na\r\nx\r\n")


def test_short_chunks_have_a_bound() -> None:
    """So many at once on a connection, in any of its requests; longer chunks are not counted."""
    client = Client()
    client.sends(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"10\r\n%b\r\n" % (b"a" * 16) * 3_000)
    assert not client.closes()
    client.sends(b"1\r\na\r\n" * 1_500)
    assert not client.closes()
    client.sends(b"1\r\na\r\n" * 60_000)
    assert client.closes()
