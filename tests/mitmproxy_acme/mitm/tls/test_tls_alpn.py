"""What a validator of tls-alpn-01 is shown."""

import contextlib
import ipaddress

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from mitmproxy_acme.mitm.tls import tls_alpn

DIGEST = "ab" * 32


@pytest.mark.parametrize(
    ("offers", "is_validator"),
    [([b"acme-tls/1"], True), ([b"acme-tls/1", b"h2"], False), ([b"h2"], False), ([], False)],
)
def test_validator_offers_one_protocol(offers: list[bytes], is_validator: bool) -> None:
    """A client that also offers others is not a validator (RFC 8737 section 3)."""
    assert (list(offers) == tls_alpn.VALIDATOR_OFFERS) is is_validator


def shown(name: str) -> tuple[x509.Certificate, bytes]:
    """Return the certificate and the protocol of a handshake in memory."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_alpn_protos([tls_alpn.PROTOCOL])
    client, server = SSL.Connection(context), tls_alpn.connection(name, DIGEST)
    client.set_connect_state()
    for _ in range(4):
        for one, other in ((client, server), (server, client)):
            with contextlib.suppress(SSL.WantReadError):
                one.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(65_536))
    certificate = client.get_peer_certificate(as_cryptography=True)
    assert certificate is not None
    return certificate, client.get_alpn_proto_negotiated()


def test_certificate_has_one_name_and_the_digest_as_a_critical_extension() -> None:
    """RFC 8737 section 3: one name, the digest in acmeIdentifier, and the protocol."""
    certificate, protocol = shown("a.example.test")
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    proof = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31"))
    assert names.value.get_values_for_type(x509.DNSName) == ["a.example.test"]
    assert proof.critical
    assert isinstance(proof.value, x509.UnrecognizedExtension)
    assert proof.value.value == b"\x04\x20" + bytes.fromhex(DIGEST)
    assert protocol == b"acme-tls/1"


def test_certificate_for_an_address_names_the_address() -> None:
    """The client sends its reverse name, and expects the address (RFC 8738 section 6)."""
    certificate, _ = shown("1.0.0.127.in-addr.arpa")
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("127.0.0.1")]


@given(st.ip_addresses())
def test_address_is_read_from_its_reverse_name(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """IPv4 and IPv6."""
    assert tls_alpn.address_of(address.reverse_pointer) == address


@pytest.mark.parametrize(
    "name", ["a.example.test", "300.0.0.127.in-addr.arpa", "1.2.3.in-addr.arpa", "x." * 32 + "ip6.arpa", "in-addr.arpa"]
)
def test_other_names_are_not_addresses(name: str) -> None:
    """They stay names, even if they look like a reverse name."""
    assert tls_alpn.address_of(name) is None


@pytest.mark.parametrize("value", ["", "ab" * 31, "AB" * 32, DIGEST + "0", DIGEST + "\n", "\n" + DIGEST])
def test_what_is_no_digest(value: str) -> None:
    """Storage may hold anything where a digest should be: 64 hexadecimal digits, and nothing behind them."""
    assert tls_alpn.is_digest(DIGEST)
    assert not tls_alpn.is_digest(value)


def test_reverse_name_that_is_too_short_is_no_address() -> None:
    """One of IPv6 has 32 labels; a zone above it is a name like any other."""
    whole = ipaddress.ip_address("::1").reverse_pointer
    assert tls_alpn.address_of(whole) == ipaddress.ip_address("::1")
    assert tls_alpn.address_of(whole.removeprefix("1.0.")) is None
