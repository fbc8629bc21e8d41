"""Addresses of DNS servers as options and arguments write them."""

import pytest

from mitmproxy_acme.core.dns_server import DnsServer
from mitmproxy_acme.core.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("127.0.0.1:5353", DnsServer("127.0.0.1", 5353)),
        ("127.0.0.1", DnsServer("127.0.0.1", 53)),
        ("[::1]:5353", DnsServer("::1", 5353)),
        ("[::1]", DnsServer("::1", 53)),
        ("::1", DnsServer("::1", 53)),
        ("2001:db8::1", DnsServer("2001:db8::1", 53)),
        ("2001:db8::", DnsServer("2001:db8::", 53)),
    ],
)
def test_server(text: str, server: DnsServer) -> None:
    """An address, with or without a port."""
    assert DnsServer.parse(text, "--dns") == server


@pytest.mark.parametrize("text", ["", "dns.test:53", "127.0.0.1:x", "127.0.0.1:0", "127.0.0.1:65536"])
def test_what_is_no_server(text: str) -> None:
    """It is one sentence that says what would be right."""
    with pytest.raises(ConfigError, match="write an IP address such as"):
        DnsServer.parse(text, "--dns")
