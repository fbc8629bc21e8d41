"""Keys of accounts (RFC 7517) and of certificates, and certificate signing requests (RFC 2986).

This module knows key types; it must not know what the keys are used for. Making an RSA key takes up to seconds: call it
off the event loop (OpenSSL releases the interpreter lock meanwhile).
"""

import ipaddress
import json

import josepy as jose
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ..core.certificate import PrivateKey
from ..core.errors import ConfigError
from ..core.names import ServerName, is_address

_COMMON_NAME_MOST = 64  # ub-common-name, RFC 5280 appendix A.1

# ES256 first: signing costs a third of RS256's (0.58 ms against 1.5 ms a request, measured).
_ALGORITHMS = {"P-256": jose.ES256, "P-384": jose.ES384, "P-521": jose.ES512}


def new_certificate_key(key_type: str) -> PrivateKey:
    """Make a key of one of ``key_types.KEY_TYPES``."""
    kind, size = key_type.split("-")
    if kind == "rsa":
        return rsa.generate_private_key(65_537, int(size))
    return ec.generate_private_key(ec.SECP256R1() if size == "p256" else ec.SECP384R1())


def certificate_request(key: PrivateKey, names: tuple[ServerName, ...]) -> x509.CertificateSigningRequest:
    """Return a CSR for all the names; the first is also the common name, if it is short enough.

    A longer common name would fail after validation, when the order is spent (as in lua-resty-acme). An address is no
    common name: the CAs that issue for addresses do so without one.
    """
    is_common = len(names[0]) <= _COMMON_NAME_MOST and not is_address(names[0])
    subject = [x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])] if is_common else []
    alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
    builder = x509.CertificateSigningRequestBuilder(x509.Name(subject))
    return builder.add_extension(alternatives, critical=False).sign(key, hashes.SHA256())


def _general_name(name: ServerName) -> x509.GeneralName:
    return x509.IPAddress(ipaddress.ip_address(name)) if is_address(name) else x509.DNSName(name)


def new_account_key() -> jose.JWK:
    return jose.JWKEC(key=ec.generate_private_key(ec.SECP256R1()))


def load_account_key(text: str) -> jose.JWK:
    """Read an operator's key, PEM or JWK, RSA or EC. Raises ``ConfigError``, which never quotes it."""
    try:
        key = jose.JWK.from_json(json.loads(text)) if text.lstrip().startswith("{") else jose.JWK.load(text.encode())
    except (jose.Error, ValueError, TypeError, KeyError, UnsupportedAlgorithm):
        key = None
    # josepy reads unknown text as a symmetric key, and accepts a public key: neither can sign.
    if isinstance(key, jose.JWKRSA | jose.JWKEC) and hasattr(key.key, "private_numbers"):
        return key
    raise ConfigError("acme_account_key: it is not a private RSA or EC key; give a PEM or JWK file as file:/path")


def algorithm(key: jose.JWK) -> jose.JWASignature:
    """Return the JWS algorithm for an account key (RFC 7518 section 3.1)."""
    if isinstance(key, jose.JWKRSA):
        return jose.RS256
    return _ALGORITHMS[key.fields_to_partial_json()["crv"]]


def thumbprint(key: jose.JWK) -> str:
    """Return the JWK thumbprint (RFC 7638), base64url."""
    return jose.encode_b64jose(key.thumbprint())
