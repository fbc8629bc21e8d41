"""What a source holds: a certificate, or the reason why one cannot be used.

This module knows PEM and files; it must not know anybody's layout. No reason shows what is in a file.
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

_MOST = 60 * 1024  # what storage holds under one key, and room for what our record adds to it


@dataclass(frozen=True, slots=True)
class FoundCertificate:
    """One certificate; ``name`` is what its source calls it, and its ``ca`` is empty where the source does not tell."""

    name: str
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class Rejected:
    """None, and why. ``foreign``: nothing is wrong with it, but it is no certificate of an ACME CA."""

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
        return Rejected(name, f"it has {len(chain) + len(key)} bytes, more than any certificate")
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
        raise CertificateError("its private key cannot be read: it is no PEM of a key") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise CertificateError("its private key is of a kind that no CA signs for TLS servers")
    return key


def _require_issuer(certificate: Certificate) -> None:
    """The issuer comes right behind the leaf: not all clients look for it elsewhere (RFC 8446 section 4.4.2)."""
    if not certificate.chain:
        return
    try:
        certificate.leaf.verify_directly_issued_by(certificate.chain[0])
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        raise CertificateError("the certificate behind it in its chain is not its issuer's") from None
