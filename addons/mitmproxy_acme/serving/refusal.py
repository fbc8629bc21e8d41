"""Refusing a handshake so that the client knows at once (``acme_fallback=reject``).

This module knows what makes OpenSSL and aioquic end a handshake; it must not know whom to refuse.
"""

import datetime
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from mitmproxy.proxy.layers.quic import QuicTlsSettings
from OpenSSL import SSL


def tls() -> SSL.Connection:
    """Return a connection that fails at once: it has no certificate to offer.

    Raising ``AddonHalt``, mitmproxy's own way, leaves the client hanging until its own timeout (seen).
    """
    connection = SSL.Connection(SSL.Context(SSL.TLS_SERVER_METHOD))
    connection.set_accept_state()
    return connection


def quic() -> QuicTlsSettings:
    """Return settings that fail at once: they share no cipher with anybody.

    aioquic wants a certificate before it looks at anything else; this one never leaves the process.
    """
    certificate, key = _placeholder()
    return QuicTlsSettings(certificate=certificate, certificate_private_key=key, cipher_suites=[])


@cache
def _placeholder() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key, nobody, day = ec.generate_private_key(ec.SECP256R1()), x509.Name([]), datetime.datetime(2000, 1, 1)
    builder = x509.CertificateBuilder(nobody, nobody, key.public_key(), x509.random_serial_number(), day, day)
    return builder.sign(key, hashes.SHA256()), key
