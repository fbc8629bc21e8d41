"""How much mitmproxy logs about connections."""

import logging
from collections.abc import Iterator

import pytest

from mitmproxy_acme.mitm.connection_log import ConnectionLog
from tests.mitmproxy_acme.fakes import Clock

MITMPROXY = logging.getLogger("mitmproxy.proxy.server")


@pytest.fixture
def clock(caplog: pytest.LogCaptureFixture) -> Iterator[Clock]:
    """The time, while the filter is installed."""
    caplog.set_level("INFO")
    time = Clock()
    few = ConnectionLog(time)
    few.begin()
    yield time
    few.end()


@pytest.mark.parametrize(
    "line",
    [
        "Client TLS handshake failed. Cannot parse ClientHello: 16",
        "Client QUIC handshake failed. Cannot parse ClientHello: 16",
        "192.0.2.1:443: Bad HTTP request line: b'x'",
        "[2001:db8::1]:443: Invalid header line: b'x'",
        "Client closed connection before completing request headers: b'x'",
    ],
)
def test_flood_of_failures_is_few_lines_and_a_count(clock: Clock, caplog: pytest.LogCaptureFixture, line: str) -> None:
    """Twenty are logged as mitmproxy does; the others are counted, once a minute."""

    def fail(times: int) -> list[str]:
        caplog.clear()
        for _ in range(times):
            MITMPROXY.warning(line)
        return caplog.messages

    said = fail(10_000)
    assert len(said) == 21
    assert said[-1] == "left out 1 of mitmproxy's lines about clients that connect, disconnect or fail"
    clock.advance(60)
    said = fail(10_000)
    assert [line for line in said if line.startswith("left out 9980")]
    assert len(said) == 13


def test_line_is_short(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """The bytes that a stranger sent are cut off."""
    MITMPROXY.warning("Client TLS handshake failed. Cannot parse ClientHello: " + "16" * 65_535)
    MITMPROXY.info("Client closed connection before completing request headers: " + "a" * 65_535)
    assert [len(line) for line in caplog.messages] == [301, 301]


def test_flood_of_connections_is_limited(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Some hundred lines pass, as many as a person would read; then five a second."""
    for _ in range(10_000):
        MITMPROXY.info("client connect")
        MITMPROXY.info("client disconnect")
    assert len(caplog.messages) == 501
    clock.advance(10)
    for _ in range(100):
        MITMPROXY.info("client connect")
    assert len(caplog.messages) == 551


def test_other_lines_are_left_alone(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(1_000):
        MITMPROXY.info("server connect 192.0.2.1:443")
    MITMPROXY.info({"not": "text"})
    assert len(caplog.messages) == 1_001
