"""What reaches mitmproxy's own parser of DNS messages in the ``reverse:dns`` mode."""

from typing import Literal

import dns.message
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mitmproxy import connection
from mitmproxy import options as mitm_options
from mitmproxy.proxy import commands, context, events, layer, mode_specs

from mitmproxy_acme.mitm.dns.message_guard import DnsGuard
from tests.costs import cpu_seconds
from tests.mitmproxy_acme.mitm.dns.test_wire import HOSTILE

QUERY = dns.message.make_query("www.example.test", "TXT", id=1, use_edns=0).to_wire()


class Wrapped(layer.Layer):
    """Records what is passed on to it; answers each message with itself while ``answers``."""

    def __init__(self, of: context.Context) -> None:
        super().__init__(of)
        self.passed: list[bytes] = []
        self.answers = True

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.DataReceived):
            self.passed.append(event.data)
            if self.answers:
                yield commands.SendData(event.connection, event.data)


class Wire:
    """A guard, what it sends to the client, and whether it closed."""

    def __init__(self, transport: Literal["tcp", "udp"]) -> None:
        self.client = connection.Client(
            peername=("192.0.2.1", 1),
            sockname=("127.0.0.1", 53),
            transport_protocol=transport,
            proxy_mode=mode_specs.ProxyMode.parse("reverse:dns://192.0.2.9"),
        )
        self.context = context.Context(self.client, mitm_options.Options())
        self.behind = Wrapped(self.context)
        self.guard = DnsGuard(self.context, self.behind)
        self.sent: list[bytes] = []
        self.closed = False
        self.wakeups: list[commands.RequestWakeup] = []
        self.handle(events.Start())

    def receive(self, data: bytes) -> None:
        self.handle(events.DataReceived(self.client, data))

    def wake(self) -> None:
        """Let the time pass for which the guard waits."""
        self.handle(events.Wakeup(self.wakeups.pop()))

    def handle(self, event: events.Event) -> None:
        for command in self.guard.handle_event(event):
            if isinstance(command, commands.SendData):
                self.sent.append(command.data)
            elif isinstance(command, commands.RequestWakeup):
                self.wakeups.append(command)
            self.closed |= isinstance(command, commands.CloseConnection)


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(2) + message


def test_mitmproxy_sees_its_own_layers() -> None:
    """It decides by them which kind of proxy it is."""
    wire = Wire("udp")
    assert wire.context.layers == [wire.behind]


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_hostile_message_is_not_passed_on_or_costs_little(hostile: bytes) -> None:
    """Under ten milliseconds, including mitmproxy's parser for those that are queries."""
    wire = Wire("udp")
    assert cpu_seconds(lambda: wire.receive(hostile)) < 0.01
    assert all(len(message) <= 1_024 for message in wire.behind.passed)


@pytest.mark.parametrize("label", [b".", b"a.b", b"xn--a", b"xn--" + 59 * b"9", b"\xff", b"\0"])
def test_name_that_mitmproxy_cannot_read_and_write_is_refused(label: bytes) -> None:
    """Or passed on; it never ends in a traceback."""
    question = b"\0\1\1\0\0\1" + bytes(6) + bytes([len(label)]) + label + b"\0\0\x10\0\1"
    wire = Wire("udp")
    wire.receive(question)
    assert wire.behind.passed == [question] or wire.sent == [b"\0\1\x81\5" + question[4:]]


@settings(max_examples=200)
@given(cuts=st.lists(st.integers(1, 60), max_size=20))
def test_messages_over_tcp_may_come_in_any_pieces(cuts: list[int]) -> None:
    """Each is passed on as soon as it is complete."""
    wire, stream = Wire("tcp"), framed(QUERY) + framed(QUERY[:2] + b"\x28" + QUERY[3:]) + framed(QUERY)
    for cut in cuts:
        wire.receive(stream[:cut])
        stream = stream[cut:]
    wire.receive(stream)
    assert wire.behind.passed == 2 * [framed(QUERY)]
    assert wire.sent == [framed(QUERY), framed(b"\0\1\xa8\4" + bytes(8)), framed(QUERY)]
    assert not wire.closed


@pytest.mark.parametrize("length", [0, 11, 1_025, 65_535])
def test_length_that_no_question_has_closes(length: int) -> None:
    wire = Wire("tcp")
    wire.receive(length.to_bytes(2))
    assert wire.closed
    assert wire.behind.passed == []


def test_queries_that_wait_for_the_upstream_have_a_limit() -> None:
    """For one client; a reply makes room for the next query."""
    wire = Wire("tcp")
    wire.behind.answers = False
    wire.receive(1_000 * framed(QUERY))
    assert len(wire.behind.passed) == 100


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_idle_client_is_disconnected(transport: Literal["tcp", "udp"]) -> None:
    """Over TCP part of a message is not a query; over UDP a client that waits for the upstream may go on."""
    wire = Wire(transport)
    frame = framed if transport == "tcp" else bytes
    wire.receive(frame(QUERY))
    wire.wake()
    assert not wire.closed
    wire.behind.answers = False
    wire.receive(frame(QUERY))
    wire.wake()
    if transport == "tcp":
        wire.receive(b"\0")
    wire.wake()
    assert wire.closed == (transport == "tcp")
