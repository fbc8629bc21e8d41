"""Certificate: leaf, chain and private key as one value, so that they always match.

This module knows X.509 and the record format of certificates; it must not know where they are stored, how they are
obtained, or OpenSSL's contexts.
"""

import base64
import json
import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from .errors import CertificateError
from .names import ServerName, Subject, is_address
from .text import one_line
from .versions import reject_newer

type PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_RECORD_VERSION = 1
_DAY = 86_400.0
UNREADABLE = (
    ValueError,
    TypeError,
    KeyError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What the library raises when it parses a part of a certificate, which it does on access."""

# More than any client follows (GnuTLS 16, mbed TLS 8 between leaf and root). A hundred could not be stored.
_LONGEST_CHAIN = 10
# Characters of PEM. A leaf with a hundred of the longest names fits, and the sealed record of such a chain stays below
# the 64 KiB that every storage accepts.
_LARGEST_CHAIN = 40 * 1024
_BLOCK = "-----BEGIN CERTIFICATE-----"
_CUT_BLOCK = "-----BEGIN CERT"
# Bits: OpenSSL's minimum at its default security level, 2.
_SHORTEST_RSA, _SHORTEST_EC = 2_048, 224


@dataclass(frozen=True, eq=False)
class Certificate:
    """A leaf with the intermediates that lead to its root, and its private key.

    Frozen, and safe to share between threads. ``id`` is the name that it is stored under, ``ca`` the directory URL of
    the CA that issued it, ``obtained`` when it was ordered, 0 if unknown. Times are Unix seconds. The key never shows
    in a repr.
    """

    id: ServerName
    ca: str
    leaf: x509.Certificate = field(repr=False)
    chain: tuple[x509.Certificate, ...] = field(repr=False)
    key: PrivateKey = field(repr=False)
    obtained: float = 0.0

    @classmethod
    def from_pem(cls, id: ServerName, ca: str, chain_pem: str, key: PrivateKey, obtained: float = 0.0) -> Self:
        """Read a chain (RFC 8555 section 9.1: leaf first) and its key. Raises ``CertificateError``."""
        leaf, *intermediates = load_chain(chain_pem, id)
        certificate = cls(id, ca, leaf, tuple(intermediates), key, obtained)
        certificate._check()
        return certificate

    def _check(self) -> None:
        try:
            public_key, names = self.leaf.public_key(), self.names
            # Callers that ask for these later expect no error.
            self.not_before, self.not_after, self.issuer_name, self.renewal_id  # noqa: B018  # each is parsed here
        except UNREADABLE as error:
            raise CertificateError(f"the certificate of {self.id} cannot be read: {one_line(str(error))}") from error
        if public_key != self.key.public_key():
            raise CertificateError(f"the certificate of {self.id} does not belong to its private key")
        if not names:
            raise CertificateError(f"the certificate of {self.id} has no subject alternative names")
        if self.key.key_size < (_SHORTEST_RSA if isinstance(self.key, rsa.RSAPrivateKey) else _SHORTEST_EC):
            raise CertificateError(f"the key of {self.id} ({self.key_type}) is too short for TLS")

    @classmethod
    def from_record(cls, id: ServerName, record: bytes) -> Self:
        """Read what ``to_record`` wrote.

        Raises ``RecordRefused`` if a later release wrote it, ``CertificateError`` for anything else.
        """
        try:
            fields = json.loads(record)
            reject_newer(fields, _RECORD_VERSION, f"the record of {id}")
            version, ca, chain, key_pem = (fields[name] for name in ("version", "ca", "chain", "key"))
            if not (version == _RECORD_VERSION and isinstance(ca, str) and isinstance(chain, str) and ca.isprintable()):
                raise TypeError
            obtained = float(fields.get("obtained", 0.0))
            key = serialization.load_pem_private_key(key_pem.encode(), password=None)
        except (*UNREADABLE, AttributeError, OverflowError, RecursionError) as error:
            # Only the class of the error: its text may quote the record, which holds a private key.
            raise CertificateError(f"the record of {id} is broken ({type(error).__name__})") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise CertificateError(f"the key of {id} is neither RSA nor EC, which TLS servers need")
        return cls.from_pem(id, ca, chain, key, obtained if math.isfinite(obtained) else 0.0)

    def to_record(self) -> bytes:
        """Return the record to store. It holds the private key in clear text; ``store.encryption`` seals it."""
        fields = {"version": _RECORD_VERSION, "ca": self.ca, "chain": self.chain_pem, "key": self.key_pem}
        return json.dumps(fields | {"obtained": self.obtained}).encode()

    @property
    def key_pem(self) -> str:
        """The private key in clear text (PKCS 8), for servers that use the certificate. Never show it to a person."""
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()

    @property
    def leaf_pem(self) -> str:
        return _pem(self.leaf)

    @property
    def intermediates_pem(self) -> str:
        """The chain without the leaf."""
        return "".join(map(_pem, self.chain))

    @property
    def chain_pem(self) -> str:
        """Leaf and intermediates, as a server sends them."""
        return self.leaf_pem + self.intermediates_pem

    @cached_property
    def not_before(self) -> float:
        return self.leaf.not_valid_before_utc.timestamp()

    @cached_property
    def not_after(self) -> float:
        """When clients stop accepting it: the end of the leaf, or of an intermediate that ends earlier."""
        intermediates = (link for link in self.chain if link.issuer != link.subject)  # clients use their own roots
        return min(link.not_valid_after_utc.timestamp() for link in (self.leaf, *intermediates))

    @property
    def begun(self) -> float:
        """When we first had it: a CA may set ``not_before`` days or years earlier."""
        return max(self.not_before, min(self.obtained, self.not_after))

    @property
    def lifetime(self) -> float:
        """The seconds from ``begun`` to ``not_after``."""
        return self.not_after - self.begun

    @cached_property
    def names(self) -> frozenset[str]:
        """The DNS names and IP addresses that it is valid for; the common name does not count (RFC 6125)."""
        try:
            extension = self.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            return frozenset()
        hosts = {name.lower() for name in extension.value.get_values_for_type(x509.DNSName)}
        # Clients do not accept an IP address that is written as a DNS name, with or without a wildcard.
        dns_names = {host for host in hosts if not is_address(host)}
        return frozenset(dns_names | {str(a) for a in extension.value.get_values_for_type(x509.IPAddress)})

    @cached_property
    def fingerprint(self) -> bytes:
        return self.leaf.fingerprint(hashes.SHA256())

    @cached_property
    def issuer_name(self) -> str:
        """The issuer's common name, else its whole name: how people know the CA."""
        return one_line(common_name(self.leaf.issuer) or self.leaf.issuer.rfc4514_string())

    @cached_property
    def key_type(self) -> str:
        """The key type as ``acme_key_type`` writes it; ``ecdsa-`` and the curve's own name for other curves."""
        if isinstance(self.key, rsa.RSAPrivateKey):
            return f"rsa-{self.key.key_size}"
        curve = self.key.curve.name
        return "ecdsa-" + {"secp256r1": "p256", "secp384r1": "p384"}.get(curve, curve)

    @property
    def renewal_id(self) -> str | None:
        """The unique identifier of RFC 9773 section 4.1; None if the certificate has no authority key identifier."""
        try:
            extension = self.leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
        except x509.ExtensionNotFound:
            return None
        serial = self.leaf.serial_number
        # DER integers are signed, and RFC 9773 encodes them as DER does: so one bit more than the number has. Some old
        # CAs of companies have negative ones (RFC 5280 section 4.1.2.2).
        signed = serial.to_bytes(serial.bit_length() // 8 + 1, "big", signed=True)
        return f"{_base64url(extension.value.key_identifier or b'')}.{_base64url(signed)}"

    def has_same_key_as(self, other: "Certificate") -> bool:
        """Say whether both have the same private key, as after a renewal elsewhere that kept the key."""
        return self.key.public_key() == other.key.public_key()

    def precedes(self, other: "Certificate") -> bool:
        """Say whether it was issued before ``other`` and ends earlier.

        A difference of up to a day does not count: some CAs set ``not_before`` of all certificates to midnight.
        """
        return self.not_before + _DAY < other.not_before and self.not_after < other.not_after

    def covers(self, name: str) -> bool:
        """Say whether a client that asks for ``name`` accepts it; ``*.`` matches one label (RFC 6125 6.4.3)."""
        return name in self.names or "*." + name.partition(".")[2] in self.names

    def serves(self, subject: Subject, now: float) -> bool:
        """Say whether it serves ``subject`` now: it has not expired and covers all its names."""
        return now < self.not_after and all(self.covers(name) for name in subject.names)


def load_chain(pem: str, id: str) -> list[x509.Certificate]:
    """Read the certificates of a PEM chain, at least one; ``id`` names it in messages.

    A chain that is too long for a client or a storage is refused before it is parsed. Raises ``CertificateError``, also
    for a chain that ends in the middle of a certificate.
    """
    if (intermediates := pem.count(_BLOCK) - 1) > _LONGEST_CHAIN:
        raise CertificateError(
            f"the chain of {id} has {intermediates} intermediates; clients follow at most {_LONGEST_CHAIN}"
        )
    if len(pem) > _LARGEST_CHAIN:
        raise CertificateError(f"the chain of {id} has {len(pem)} characters; at most {_LARGEST_CHAIN} can be stored")
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
    except (ValueError, x509.InvalidVersion) as error:
        raise CertificateError(f"the certificate of {id} is not a PEM chain: {one_line(str(error))}") from error
    if len(found) < pem.count(_CUT_BLOCK):
        raise CertificateError(f"the chain of {id} ends in the middle of a certificate")
    return found


def common_name(name: x509.Name) -> str | None:
    """Return the first common name; None if it has none, as with newer CAs."""
    names = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if names else None


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
