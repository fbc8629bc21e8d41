"""Answers tls-alpn-01 (RFC 8737) on the port of normal traffic.

This module knows the certificate that a validator looks for; it must not know who ordered, or where proofs are kept.
"""

import datetime
import ipaddress
import re
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from ...core.proof import ACME_TLS, acme_identifier

PROTOCOL = ACME_TLS.encode()
_DAY = datetime.timedelta(days=1)


def asks(offers: Sequence[bytes]) -> bool:
    """Say whether a client is a validator: it offers this protocol, and no other (RFC 8737 section 3)."""
    return list(offers) == [PROTOCOL]


def is_digest(proof: str) -> bool:
    """Say whether a proof can be shown: what lies in storage in its place may be anything."""
    return re.fullmatch(r"[0-9a-f]{64}", proof) is not None


def connection(name: str, digest: str) -> SSL.Connection:
    """Return a connection that shows a validator of ``name`` (its SNI) the proof, and speaks nothing else."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_alpn_select_callback(lambda _, offered: PROTOCOL)  # ``asks`` has seen that nothing else is offered
    certificate, key = _certificate(name, digest)
    context.use_certificate(certificate)
    context.use_privatekey(key)
    shown = SSL.Connection(context)
    shown.set_accept_state()
    return shown


def _certificate(name: str, digest: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key, nobody, now = ec.generate_private_key(ec.SECP256R1()), x509.Name([]), datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder(nobody, nobody, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
        .add_extension(x509.SubjectAlternativeName([_general_name(name)]), critical=True)
        .add_extension(acme_identifier(digest), critical=True)
    )
    return builder.sign(key, hashes.SHA256()), key


def _general_name(name: str) -> x509.GeneralName:
    """Return the name, or the address that its reverse name stands for (RFC 8738 section 6)."""
    address = address_of(name)
    return x509.IPAddress(address) if address is not None else x509.DNSName(name)


def address_of(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address of ``1.0.0.127.in-addr.arpa`` or its like of IPv6; None for another name."""
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
