"""How many HTTP/2 frames without data are read: mitmproxy's own layers, without sockets."""

import struct
from collections.abc import Iterator

import h2.config
import h2.connection
import pytest
from mitmproxy.proxy import commands, events

from mitmproxy_acme.mitm.http.http2_limits import EmptyFrameCounter, Http2Limits
from tests.costs import cpu_seconds
from tests.mitmproxy_acme.fakes import Clock
from tests.mitmproxy_acme.mitm.http.open_layer import open_layer

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(type: int, content: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return struct.pack("!I", len(content))[1:] + bytes((type, flags)) + struct.pack("!I", stream) + content


EMPTY = frame(0, stream=1)
FLOODS = {
    "data": EMPTY,
    "priority": frame(2, b"\0\0\0\0\x10", stream=3),
    "reset": frame(3, b"\0\0\0\x08", stream=1),
    "settings": frame(4),
    "ping": frame(6, b"12345678"),
    "continuation": frame(9, stream=1),
}
GOAWAY_CALM = b"\0\0\x08\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\x0b"


@pytest.fixture(autouse=True)
def frames() -> Iterator[None]:
    bounded = Http2Limits()
    bounded.install()
    yield
    bounded.uninstall()


class Client:
    """A client that speaks HTTP/2 in a mode, and mitmproxy's layer for its requests."""

    def __init__(self, mode: str = "reverse:http://up.test") -> None:
        self._client, self._layer = open_layer(mode, alpn=b"h2")
        list(self._layer.handle_event(events.Start()))
        self._speaks = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self._speaks.initiate_connection()
        self._asked = 1
        self.ask()

    def sends(self, data: bytes) -> list[commands.Command]:
        return list(self._layer.handle_event(events.DataReceived(self._client, data)))

    def ask(self) -> list[commands.Command]:
        """Send one request."""
        fields = [(":method", "POST"), (":path", "/"), (":scheme", "https"), (":authority", "a.test")]
        self._speaks.send_headers(self._asked, fields)
        self._asked += 2
        return self.sends(self._speaks.data_to_send())


@pytest.mark.parametrize("kind", FLOODS)
def test_flood_ends_the_connection(kind: str) -> None:
    """With ENHANCE_YOUR_CALM, before the library reads the frames; what comes after that is dropped."""
    client = Client()
    said = client.sends(FLOODS[kind] * 2_000)
    assert [command.data for command in said if isinstance(command, commands.SendData)] == [GOAWAY_CALM]
    assert any(isinstance(command, commands.CloseConnection) for command in said)
    assert client.sends(FLOODS[kind]) == []


def test_other_modes_are_left_alone() -> None:
    """The users of a forward proxy are not strangers."""
    client = Client("regular")
    assert not any(isinstance(command, commands.CloseConnection) for command in client.sends(FLOODS["ping"] * 1_100))
    assert client.ask()


def test_ordinary_client_is_never_closed() -> None:
    """Frames with data are never counted, and a slow trickle of pings never adds up."""
    clock = Clock()
    count = EmptyFrameCounter(clock)
    assert not count.is_flood(PREFACE)
    update, headers = frame(8, b"\0\0\0\1"), frame(1, b"x" * 50, flags=5, stream=1)
    assert not count.is_flood((frame(0, b"x" * 1_000, stream=1) + update + headers) * 20_000)
    for _ in range(5_000):
        clock.advance(0.02)
        assert not count.is_flood(FLOODS["ping"])


@pytest.mark.parametrize("size", [1, 5, 9, 10, 1_000])
def test_frames_are_counted_in_any_pieces(size: int) -> None:
    count, said = EmptyFrameCounter(Clock()), PREFACE + frame(0, b"x" * 70, stream=1) + FLOODS["ping"] * 1_001
    floods = [count.is_flood(said[at : at + size]) for at in range(0, len(said), size)]
    assert floods.count(True) == 1


def test_flood_costs_little() -> None:
    """64 KB of empty frames took 1.5 s."""
    assert cpu_seconds(lambda: Client().sends(EMPTY * 7_281), times=2) < 0.15
