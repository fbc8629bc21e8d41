"""An item of a source: a certificate, or the reason why it cannot be used.

This module knows PEM and files; it must not know any layout. No reason quotes the content of a file.
"""

from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ...ca.delivery import require_server
from ...core.certificate import Certificate, PrivateKey
from ...core.errors import CertificateError
from ...core.names import ServerName

_MOST = 60 * 1024  # bytes: what a storage key holds, less what our record adds


@dataclass(frozen=True, slots=True)
class FoundCertificate:
    """One certificate; ``name`` is the source's name for it, and its ``ca`` is empty if the source does not say."""

    name: str
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class Rejected:
    """An item that cannot be used. ``foreign``: it is intact, but not from an ACME CA."""

    name: str
    why: str
    foreign: bool = False


type ImportItem = FoundCertificate | Rejected


def from_files(name: str, chain: Path, key: Path, ca: str) -> ImportItem:
    """Read two PEM files."""
    try:
        return from_pem(name, chain.read_bytes(), key.read_bytes(), ca)
    except OSError as error:
        return Rejected(name, f"{error.filename} cannot be read: {error.strerror}")


def from_pem(name: str, chain: bytes, key: bytes, ca: str) -> ImportItem:
    """Read a chain, the leaf first, and its private key."""
    if len(chain) + len(key) > _MOST:
        return Rejected(name, f"it has {len(chain) + len(key)} bytes, more than {_MOST}")
    try:
        text = chain.decode("ascii", "replace")
        certificate = Certificate.from_pem(ServerName(name), ca, text, _private_key(key))
        require_server(certificate.leaf)
        _require_issuer(certificate)
    except CertificateError as error:
        return Rejected(name, str(error))
    return FoundCertificate(name, certificate)


def _private_key(pem: bytes) -> PrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise CertificateError("its private key is encrypted; decrypt it first") from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError("its private key is not a PEM key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise CertificateError("its private key is of a kind that CAs do not accept for TLS servers")
    return key


def _require_issuer(certificate: Certificate) -> None:
    """Require the issuer directly after the leaf: some clients look nowhere else (RFC 8446 section 4.4.2)."""
    if not certificate.chain:
        return
    try:
        certificate.leaf.verify_directly_issued_by(certificate.chain[0])
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        raise CertificateError("the next certificate in its chain is not its issuer's") from None
