"""Names as clients send them and operators write them."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitmproxy_acme.core.errors import ConfigError
from mitmproxy_acme.core.names import (
    ServerName,
    Subject,
    is_address,
    options_for,
    parse_address,
    parse_certificate_name,
    parse_identifier,
    parse_server_name,
    url_host,
)
from tests.costs import cpu_seconds


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("www.example.com", "www.example.com"),
        ("WWW.Example.COM", "www.example.com"),
        ("www.example.com.", "www.example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("localhost", "localhost"),
        ("a" * 63 + ".test", "a" * 63 + ".test"),
        ("1.2.3.4.in-addr.arpa", "1.2.3.4.in-addr.arpa"),
    ],
)
def test_server_name_is_normalised(raw: str, name: str) -> None:
    """Case, a trailing dot and U-labels make no other name."""
    assert parse_server_name(raw) == name


@pytest.mark.parametrize(
    "raw",
    [
        None,
        "",
        ".",
        "..",
        "a..b",
        ".example.com",
        "example.com..",
        "192.0.2.1",
        "::1",
        "foo_bar.example.com",
        "-a.example.com",
        "a-.example.com",
        "a b.example.com",
        "a\n.example.com",
        "a.example.com\n",
        "a/../b",
        "a" * 64 + ".test",
        ".".join(["a" * 60] * 5),
        "*.example.com",
        "\udcff.example",
        "example.123",
    ],
)
def test_nonsense_is_no_server_name(raw: str | None) -> None:
    """A text that no CA would issue for is no server name."""
    assert parse_server_name(raw) is None


def test_longest_name_has_253_characters() -> None:
    """Without the trailing dot, which a client may send (RFC 1035 section 2.3.4)."""
    longest = ".".join(["a" * 63] * 3 + ["b" * 61])
    assert len(longest) == 253
    assert parse_server_name(longest) == parse_server_name(f"{longest}.") == longest
    assert parse_server_name(f"{longest}b") is None
    assert parse_server_name(f"{longest}b.") is None


@pytest.mark.parametrize("raw", ["a" * 65_535, "ü." * 30_000, "\u0308" * 65_535, "1:" * 30_000, "a." * 127 + "!"])
def test_long_nonsense_costs_nothing(raw: str) -> None:
    """A ClientHello may hold 64 KiB of name: it is refused by its length before it is parsed."""
    assert cpu_seconds(lambda: (parse_server_name(raw), parse_address(raw))) < 0.001
    assert parse_server_name(raw) is parse_address(raw) is None


@given(st.text(max_size=300))
def test_parsing_a_parsed_name_changes_nothing(raw: str) -> None:
    """Any input gives None, or a name that parses to itself and is safe in a storage key."""
    name = parse_server_name(raw)
    if name is not None:
        assert parse_server_name(name) == name
        assert name.isascii()
        assert len(name) <= 253
        assert not set(name) - set("abcdefghijklmnopqrstuvwxyz0123456789-.")


@pytest.mark.parametrize(
    ("raw", "hint"),
    [
        ("https://a.test", "URL"),
        ("fe80::1", "IP address"),
        ("0.0.0.0", "IP address"),
        ("192.0.2.1:443", "not a host"),
        ("192.0.2.0/24", "not a host"),
        ("a..b", "not a host"),
    ],
)
def test_wrong_identifier_is_explained(raw: str, hint: str) -> None:
    """The operator learns which option has a wrong name, what is wrong, and what would be right."""
    with pytest.raises(ConfigError, match=hint) as caught:
        parse_identifier(raw, "acme_certificates")
    assert str(caught.value).startswith("acme_certificates: ")
    assert "; write a DNS name such as www.example.com, or the IP address of a host" in str(caught.value)


def test_subject_is_known_by_its_first_name() -> None:
    """The first name is the certificate's identity; a person sees how many more there are."""
    subject = Subject((ServerName("a.test"), ServerName("b.test")), managed=True)
    assert subject.id == "a.test"
    assert str(subject) == "a.test (+1)"


def test_certificate_is_called_by_a_name_or_a_wildcard() -> None:
    """The wildcard is only allowed in front of a whole name."""
    assert parse_certificate_name("WWW.a.test.") == "www.a.test"
    assert parse_certificate_name("*.A.test") == "*.a.test"
    assert parse_certificate_name("192.0.2.1") == "192.0.2.1"
    assert parse_certificate_name("2001:DB8:0::1") == "2001:db8::1"
    for wrong in ("*", "*.", "*.*.a.test", "a.*.test", "*a.test", "*.192.0.2.1", "192.0.2", "fe80::1", ""):
        assert parse_certificate_name(wrong) is None


@pytest.mark.parametrize(
    ("raw", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0:0::00FF", "2001:db8::ff"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:db8:0:1:0:0:0:1", "2001:db8:0:1::1"),  # the longer run of zeros is the short one
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::1", "::1"),
    ],
)
def test_address_has_one_spelling(raw: str, address: str) -> None:
    """That of RFC 5952; IPv4 that comes by an IPv6 socket is IPv4."""
    assert parse_address(raw) == address
    assert parse_identifier(f" {raw} ", "acme_certificates") == address
    assert is_address(address)


@pytest.mark.parametrize(
    "raw",
    [
        *(None, "", "a.test", "192.0.2", "192.0.2.256", "0x7f.1", "192.0.2.01", "192.0.2.1/32", "192.0.2.1:443"),
        *("fe80::1", "fe80::1%eth0", "2001:db8::1%1", "169.254.1.1", "224.0.0.1", "ff02::1", "0.0.0.0", "::", "[]"),
    ],
)
def test_what_is_no_hosts_address(raw: str | None) -> None:
    """Invalid texts, and addresses that are link-local, of many hosts, or of none."""
    assert parse_address(raw) is None


@given(st.ip_addresses())
def test_no_address_is_a_dns_name(address: IPv4Address | IPv6Address) -> None:
    """The text alone tells which of the two a name is."""
    assert is_address(str(address))
    assert parse_server_name(str(address)) is None


def test_dns_name_is_no_address() -> None:
    """Digits make none as long as the last label has something else."""
    assert not any(map(is_address, ("a.test", "1.2.3.4.in-addr.arpa", "1a", "*.a.test", "2001-db8.test")))


def test_address_in_a_url() -> None:
    """IPv6 is in brackets there."""
    assert [url_host(host) for host in ("a.test", "192.0.2.1", "::1")] == ["a.test", "192.0.2.1", "[::1]"]


def test_option_that_allows() -> None:
    """Addresses have one of their own."""
    assert options_for(ServerName("a.test")) == ("acme_domains", "acme_certificates")
    assert options_for(ServerName("::1")) == ("acme_ip_certificates", "acme_certificates")


def test_names_are_written_with_spaces_around_them() -> None:
    """As in a list with commas."""
    assert parse_identifier(" a.example.test ", "option") == "a.example.test"
    assert parse_identifier(" 192.0.2.1 ", "option") == "192.0.2.1"
    assert parse_identifier(" *.example.test ", "option") == "*.example.test"
    assert parse_certificate_name(" a.example.test ") == "a.example.test"
    assert parse_certificate_name("a b.example.test") is None
