"""Authorities of requests: which host they mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmproxy_acme.core.authority import parse_authority
from tests.costs import cpu_seconds


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("a.example.com", "a.example.com"),
        ("A.Example.COM:8443", "a.example.com"),
        ("a.example.com.", "a.example.com"),
        ("a.example.com.:443", "a.example.com"),
        ("a.example.com:", "a.example.com"),  # RFC 3986 allows an empty port
        ("bücher.example", "xn--bcher-kva.example"),
        ("192.0.2.1:80", "192.0.2.1"),
        ("[2001:DB8::0:1]:443", "2001:db8::1"),
        ("[::ffff:192.0.2.1]", "192.0.2.1"),
    ],
)
def test_host_of_an_authority(authority: str, host: str) -> None:
    assert parse_authority(authority) == host


@pytest.mark.parametrize(
    "authority",
    [
        *("", ":80", "a b", "a.example.com, b.example.com", "a..example.com", "a.example.com:80:90", "a.example.com:x"),
        *("user@a.example.com", "a.example.com:80@b.example.com", "a.example.com/", "a.example.com#", "a.example.com?"),
        *("2001:db8::1", "[2001:db8::1", "[a.example.com]", "[fe80::1%eth0]", "0x7f.1.", "a_b.example.com"),
        *("a.example.com\\", "a.example.com\x00", "\ud800.example.com", "a" * 65_536, "a." * 200),
    ],
)
def test_what_is_no_authority(authority: str) -> None:
    assert parse_authority(authority) is None


@given(st.text(st.characters(), max_size=300))
def test_any_text_can_be_parsed(text: str) -> None:
    host = parse_authority(text)
    assert host is None or parse_authority(f"[{host}]" if ":" in host else host) == host


@pytest.mark.parametrize("authority", ["a" * 10**6, "[" * 10**6, ":" * 250, "ü" * 253, "[" + ":" * 250 + "]"])
def test_long_authority_costs_little(authority: str) -> None:
    assert cpu_seconds(lambda: parse_authority(authority)) < 0.005
