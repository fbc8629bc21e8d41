"""A host and a port as people write them."""

import pytest

from mitmproxy_acme.core.host_port import HostPort, parse_host_port, parse_port


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("192.0.2.1:53", "192.0.2.1", 53),
        ("localhost:65535", "localhost", 65_535),
        ("[::1]:8008", "::1", 8_008),
        ("::1:8008", "::1", 8_008),
    ],
)
def test_port_is_required_without_a_default(text: str, host: str, port: int) -> None:
    """The last colon separates it."""
    assert parse_host_port(text) == HostPort(host, port)
    with pytest.raises(ValueError, match="is not a port from 1 to 65535"):
        parse_host_port(text.rpartition(":")[0] + ":")


@pytest.mark.parametrize("text", ["192.0.2.1", "localhost", "::1", "[::1]", "2001:db8::1:53"])
def test_default_port(text: str) -> None:
    """Without a port, an IPv6 address needs no brackets."""
    assert parse_host_port(text, default_port=7) == HostPort(text.strip("[]"), 7)


@pytest.mark.parametrize("text", ["192.0.2.1:53", "[::1]:53"])
def test_default_port_gives_way(text: str) -> None:
    """A port that is written counts."""
    assert parse_host_port(text, default_port=7).port == 53


@pytest.mark.parametrize("text", ["", "0", "65536", "100000", "-1", "+1", "1.0", "x", "\u0661", "9" * 5_000])
def test_wrong_ports(text: str) -> None:
    """Only ASCII digits of a port that exists, however long the text is."""
    with pytest.raises(ValueError, match="is not a port"):
        parse_port(text)
    for default in (None, 53):
        with pytest.raises(ValueError, match="is not a port"):
            parse_host_port(f"192.0.2.1:{text}", default_port=default)
