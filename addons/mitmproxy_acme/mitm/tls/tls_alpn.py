"""Answers tls-alpn-01 (RFC 8737) on the port of normal traffic.

This module knows the certificate that a validator expects; it must not know who ordered, or where challenges are
stored.
"""

import datetime
import ipaddress
import re

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from ...core.names import ServerName
from ...core.proof import ACME_TLS, acme_identifier

PROTOCOL = ACME_TLS.encode()
VALIDATOR_OFFERS = [PROTOCOL]
"""What a validator offers in ALPN: this protocol, and no other (RFC 8737 section 3)."""

_DAY = datetime.timedelta(days=1)


def is_digest(value: str) -> bool:
    """Say whether a challenge can be answered with a value that was read from storage, which may be anything."""
    return re.fullmatch(r"[0-9a-f]{64}", value) is not None


def connection(name: str, digest: str) -> SSL.Connection:
    """Return a connection that shows a validator of ``name`` (its SNI) the digest, and speaks no other protocol."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_alpn_select_callback(lambda _, offered: PROTOCOL)  # a validator offers nothing else
    certificate, key = _certificate(name, digest)
    context.use_certificate(certificate)
    context.use_privatekey(key)
    conn = SSL.Connection(context)
    conn.set_accept_state()
    return conn


def validated_identifier(name: ServerName) -> ServerName:
    """Return what a validator with this SNI validates: of a reverse name the address, else the name itself."""
    address = address_of(name)
    return ServerName(str(address)) if address is not None else name


def _certificate(name: str, digest: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    empty = x509.Name([])
    builder = (
        x509.CertificateBuilder(empty, empty, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
        .add_extension(x509.SubjectAlternativeName([_general_name(name)]), critical=True)
        .add_extension(acme_identifier(digest), critical=True)
    )
    return builder.sign(key, hashes.SHA256()), key


def _general_name(name: str) -> x509.GeneralName:
    """Return the name; of a reverse name the address (RFC 8738 section 6)."""
    address = address_of(name)
    return x509.IPAddress(address) if address is not None else x509.DNSName(name)


def address_of(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address of a reverse name of IPv4 or IPv6 (``1.0.0.127.in-addr.arpa``); None for other names."""
    digits, _, zone = name.removesuffix(".arpa").rpartition(".")
    labels = digits.split(".")[::-1]
    try:
        if zone == "in-addr":
            return ipaddress.IPv4Address(".".join(labels))
        if zone == "ip6" and len(labels) == 32:
            return ipaddress.IPv6Address(int("".join(labels), 16))
    except ValueError:
        return None
    return None
