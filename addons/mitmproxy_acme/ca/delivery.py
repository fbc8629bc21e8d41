"""Delivery: what a CA delivers is checked as a client would, before it takes the place of what is served.

This module knows X.509, PEM and what was ordered; it must not know the CA's protocol, storage or a clock: ``now`` is
an argument. A certificate that fails a check is one failure of its order, and the one before it stays.
"""

import contextlib
import datetime
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from ..core.certificate import Certificate, PrivateKey
from ..core.errors import CertificateError, DeliveryRefused, IssuerUnavailable
from ..core.names import Subject, is_address, parse_address, parse_server_name
from ..core.renewal import describe_duration

# Seconds. CAs let certificates begin in the past, for clocks that are behind; one that begins later than this is no
# matter of clocks that are kept.
_CLOCK_SKEW = 300.0
# Seconds that a certificate must have left to take the place of one that lives longer.
_LEAST_LEFT = 3_600.0
# RFC 8555 section 9.1: PEM certificates (RFC 7468) and nothing else.
_BODY = re.compile(r"\s*(?:-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\s*)+")
_MOST_NAMED = 3

_LONGEST_PATH = 10

_UNREADABLE = (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)


@dataclass(frozen=True, slots=True)
class Expected:
    """What was ordered: for ``subject``, of the CA that messages call ``ca``.

    ``served`` is the certificate that visitors get meanwhile; None where there is none. ``additions`` are names that
    the CA documents to add by itself. ``chained`` says that the CA is known to deliver intermediates; one that has
    none to deliver signs with a root, which is among the PEM certificates of ``ca_bundle``, a path, or nothing.
    """

    subject: Subject
    ca: str
    served: Certificate | None = None
    additions: frozenset[str] = frozenset()
    chained: bool = False
    ca_bundle: str = ""


def read(subject: Subject, directory: str, body: str, key: PrivateKey) -> Certificate:
    """Return the certificate in the body of a CA's reply, which must be whole. Raises ``CertificateError``."""
    certificate = Certificate.from_pem(subject.id, directory, body, key)
    if _BODY.fullmatch(body) is None:
        raise CertificateError(f"the chain of {subject.id} is cut off, or has more in it than PEM certificates")
    return certificate


def check(certificate: Certificate, expected: Expected, now: float) -> None:
    """Refuse what a client would not accept, or what is worse than what is served.

    Raises ``DeliveryRefused``, and ``IssuerUnavailable`` where the clock of this machine may be what is wrong.
    Verifies signatures: call it off the event loop.
    """
    try:
        _require_key(certificate)
        _require_names(certificate, expected)
        require_server(certificate.leaf)
        _require_no_staple(certificate.leaf)
        _require_time(certificate, expected, now)
        _require_path(certificate, expected, now)
        _require_better(certificate, expected.served, now)
    except CertificateError as error:
        raise DeliveryRefused(f"{expected.ca} delivered {error}") from error
    except _UNREADABLE as error:
        raise DeliveryRefused(f"{expected.ca} delivered a certificate that cannot be read: {error}") from error


def _require_key(certificate: Certificate) -> None:
    if certificate.leaf.public_key() != certificate.key.public_key():
        raise CertificateError("a certificate that does not belong to the private key of the order")


def _require_names(certificate: Certificate, expected: Expected) -> None:
    """All that were ordered, and no others: what a CA adds by itself, it must document."""
    wanted = set(expected.subject.names)
    if missing := [name for name in expected.subject.names if name not in certificate.names]:
        raise CertificateError(f"a certificate that is not for {_listed(missing)}")
    if others := sorted(_names_in(certificate.leaf) - wanted - expected.additions):
        raise CertificateError(f"a certificate that is for {_listed(others)} too, which nobody ordered")


def _names_in(leaf: x509.Certificate) -> set[str]:
    """Return all that the certificate names, and common names that some clients take for a host's (RFC 6125 6.4.4)."""
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    found = {_text(name) for name in names}
    common = (str(name.value).lower() for name in leaf.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME))
    return found | {name for name in common if _is_host(name)}


def _text(name: x509.GeneralName) -> str:
    if isinstance(name, x509.DNSName):
        return name.value.lower()
    return str(name.value) if isinstance(name, x509.IPAddress) else type(name).__name__


def _is_host(text: str) -> bool:
    """Say whether a client may take a common name for a host's; a word without a dot is more often a label."""
    name = text.removeprefix("*.")
    return parse_address(name) is not None or ("." in name and parse_server_name(name) is not None)


def _listed(names: Sequence[str]) -> str:
    """Name the first, as far as they are names: the log has no use for others, nor for hundreds."""
    shown = [name if _is_name(name) else "what is no host name" for name in names[:_MOST_NAMED]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _is_name(text: str) -> bool:
    return is_address(text) or parse_server_name(text.removeprefix("*.")) == text.removeprefix("*.")


def require_server(leaf: x509.Certificate) -> None:
    """Have it be a server's (RFC 5280 section 4.2.1), as far as it says what it is for. Raises ``CertificateError``."""
    for extension in leaf.extensions:
        match extension.value:
            case x509.BasicConstraints(ca=True):
                raise CertificateError("the certificate of a CA in the place of a server's")
            case x509.ExtendedKeyUsage() as purposes if ExtendedKeyUsageOID.SERVER_AUTH not in purposes:
                raise CertificateError("a certificate whose extended key usage lacks serverAuth")
            case x509.KeyUsage(digital_signature=False):
                raise CertificateError("a certificate whose key usage lacks digitalSignature, which TLS needs")


def _require_no_staple(leaf: x509.Certificate) -> None:
    """Refuse what clients accept with an OCSP response alone (RFC 7633): none is sent here, and none was asked for."""
    for extension in leaf.extensions:
        if isinstance(extension.value, x509.TLSFeature):
            raise CertificateError(
                "a certificate that demands OCSP responses (must-staple), which this proxy never sends"
            )


def _require_time(certificate: Certificate, expected: Expected, now: float) -> None:
    leaf = certificate.leaf
    if (ahead := leaf.not_valid_before_utc.timestamp() - now) > _CLOCK_SKEW:
        raise IssuerUnavailable(
            f"{expected.ca} delivered a certificate that begins in {describe_duration(ahead)}; "
            "if it does not, the clock of this machine is wrong"
        )
    if (ended := now - leaf.not_valid_after_utc.timestamp()) >= 0:
        raise IssuerUnavailable(
            f"{expected.ca} delivered a certificate that ended {describe_duration(ended)} ago; "
            "if it did not, the clock of this machine is wrong"
        )
    for link in certificate.chain:
        if not link.not_valid_before_utc.timestamp() - _CLOCK_SKEW <= now < link.not_valid_after_utc.timestamp():
            raise CertificateError("a chain with a certificate in it that has expired, or is not valid yet")


def _require_path(certificate: Certificate, expected: Expected, now: float) -> None:
    """Have each certificate be signed by the next one, as RFC 8555 section 9.1 and TLS 1.2 order them.

    The last one stands for the root that clients have. A leaf alone is right where a root signed it itself: where we
    know that root, or where nothing says that the CA has intermediates, and nothing better is served.
    """
    chain = certificate.chain or tuple(_issuers_of(certificate.leaf, expected.ca_bundle))
    if chain:
        _verify(certificate, chain, now)
    elif expected.chained or (expected.served is not None and expected.served.chain):
        raise CertificateError(
            "a certificate without the intermediate that signed it; if its root did, name that root in acme_ca_bundle"
        )


def _issuers_of(leaf: x509.Certificate, ca_bundle: str) -> Iterable[x509.Certificate]:
    """Yield the first certificate in a PEM file that signed the leaf."""
    if not ca_bundle:
        return
    try:
        roots = x509.load_pem_x509_certificates(Path(ca_bundle).read_bytes())
    except (OSError, ValueError):
        return
    for root in roots:
        with contextlib.suppress(InvalidSignature, TypeError, *_UNREADABLE):
            leaf.verify_directly_issued_by(root)
            yield root
            return


def _require_signing(_: Policy, __: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("the key usage of an intermediate lacks keyCertSign")


def _require_servers(_: Policy, __: x509.Certificate, purposes: x509.ExtendedKeyUsage | None) -> None:
    if purposes is not None and _FOR_SERVERS.isdisjoint(purposes):
        raise ValueError("the extended key usage of an intermediate lacks serverAuth")


# The path, signatures, algorithms, path lengths, name constraints and unknown critical extensions are checked, and of
# the profile what TLS clients look at: private CAs leave out much that the Web PKI demands.
_FOR_SERVERS = frozenset({ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE})
_OF_CAS = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _require_signing)
    .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _require_servers)
)
_OF_SERVERS = ExtensionPolicy.permit_all().require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)


def _verify(certificate: Certificate, chain: Sequence[x509.Certificate], now: float) -> None:
    """Verify the path from the leaf to the last of ``chain`` (RFC 5280 section 6), which must be all of it."""
    begun = max(link.not_valid_before_utc.timestamp() for link in (certificate.leaf, *chain))
    at = datetime.datetime.fromtimestamp(max(now, begun), datetime.UTC)
    policy = PolicyBuilder().time(at).store(Store([chain[-1]])).max_chain_depth(_LONGEST_PATH)
    policy = policy.extension_policies(ca_policy=_OF_CAS, ee_policy=_OF_SERVERS)
    name = next(iter(certificate.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value))
    if not isinstance(name, x509.DNSName | x509.IPAddress):
        raise CertificateError("a certificate that names no server")
    try:
        path = policy.build_server_verifier(_concrete(name)).verify(certificate.leaf, list(chain[:-1]))
    except VerificationError as error:
        why = str(error).partition(" (encountered")[0]  # what follows is the CA's text
        raise CertificateError(f"a chain that clients do not accept: {why}") from error
    if path != [certificate.leaf, *chain]:
        raise CertificateError("a chain whose certificates are not in order, or do not belong together")


def _concrete(name: x509.DNSName | x509.IPAddress) -> x509.DNSName | x509.IPAddress:
    """Return a name that a client may ask for: a wildcard is none."""
    return x509.DNSName(name.value.replace("*", "a", 1)) if isinstance(name, x509.DNSName) else name


def _require_better(certificate: Certificate, served: Certificate | None, now: float) -> None:
    """Refuse what ends before the served one and is older, or almost over.

    One that merely ends earlier is right: another profile or CA may have shorter lives.
    """
    if served is None or certificate.not_after >= served.not_after:
        return
    if certificate.not_after - now < _LEAST_LEFT:
        left, lives = describe_duration(certificate.not_after - now), describe_duration(served.not_after - now)
        raise CertificateError(f"a certificate that ends in {left}, while the one that is served lives {lives} more")
    if certificate.precedes(served):
        raise CertificateError("a certificate that is older than the one that is served, and ends before it")
