"""Delivery: a delivered certificate is checked as a client would, before it replaces the one in use.

This module knows X.509, PEM and what was ordered; it must not know ACME, storage or a clock: ``now`` is an argument. If
a check fails, the order has failed, and the previous certificate stays in use.
"""

import contextlib
import datetime
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from ..core.certificate import UNREADABLE, Certificate, PrivateKey
from ..core.errors import CertificateError, DeliveryRefused, OfAnotherTime
from ..core.names import Subject, is_address, parse_address, parse_server_name
from ..core.renewal import describe_duration
from ..core.text import one_line

CLOCK_SKEW = 300.0
"""Seconds by which a certificate may begin in the future.

CAs date certificates back, for clients whose clocks are slow, and a maintained clock is not off by more.
"""
# Seconds that a certificate must have left to replace one that lasts longer.
_LEAST_LEFT = 3_600.0
# The part of its life that any must have left, if that is less.
_PART_LEFT = 0.1
# RFC 8555 section 9.1: PEM certificates (RFC 7468) and nothing else.
_BODY = re.compile(r"\s*(?:-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\s*)+")
_MOST_NAMED = 3

_LONGEST_PATH = 10


@dataclass(frozen=True, slots=True)
class Expected:
    """What was ordered: for ``subject``, at the CA that messages call ``ca``.

    ``served`` is the certificate now in use, if any. ``additions`` are names that the CA is documented to add by
    itself. ``chained`` says that the CA is known to deliver intermediates. A CA without intermediates signs with a
    root, which is among the PEM certificates of the file ``ca_bundle``, if that is set.
    """

    subject: Subject
    ca: str
    served: Certificate | None = None
    additions: frozenset[str] = frozenset()
    chained: bool = False
    ca_bundle: str = ""


def read(subject: Subject, directory: str, body: str, key: PrivateKey) -> Certificate:
    """Return the certificate in a CA's reply, which must be complete. Raises ``CertificateError``."""
    certificate = Certificate.from_pem(subject.id, directory, body, key)
    if _BODY.fullmatch(body) is None:
        raise CertificateError(f"the chain of {subject.id} is cut off, or contains more than PEM certificates")
    return certificate


def check(certificate: Certificate, expected: Expected, now: float) -> None:
    """Refuse a certificate that clients would not accept, or that is worse than the one in use.

    Raises ``DeliveryRefused``, and ``OfAnotherTime`` if this machine's clock may be wrong. Verifies signatures:
    call it off the event loop.
    """
    try:
        _require_key(certificate)
        _require_names(certificate, expected)
        require_server(certificate.leaf)
        _require_no_staple(certificate.leaf)
        _require_time(certificate, expected, now)
        _require_path(certificate, expected, now)
        _require_better(certificate, expected.served, now)
        _require_rest(certificate, expected, now)
    except CertificateError as error:
        raise DeliveryRefused(f"{expected.ca} delivered {error}") from error
    except UNREADABLE as error:
        why = one_line(str(error))
        raise DeliveryRefused(f"{expected.ca} delivered a certificate that cannot be read: {why}") from error


def _require_key(certificate: Certificate) -> None:
    if certificate.leaf.public_key() != certificate.key.public_key():
        raise CertificateError("a certificate that does not belong to the private key of the order")


def _require_names(certificate: Certificate, expected: Expected) -> None:
    """Require all names that were ordered, and no others, except names that the CA documents to add."""
    wanted = set(expected.subject.names)
    if missing := [name for name in expected.subject.names if name not in certificate.names]:
        raise CertificateError(f"a certificate that is not for {_listed(missing)}")
    if others := sorted(_names_in(certificate.leaf) - wanted - expected.additions):
        raise CertificateError(f"a certificate that is also for {_listed(others)}, which was not ordered")


def _names_in(leaf: x509.Certificate) -> set[str]:
    """Return all names of the certificate, with common names that some clients treat as a host's (RFC 6125 6.4.4)."""
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    found = {_text(name) for name in names}
    common = (str(name.value).lower() for name in leaf.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME))
    return found | {name for name in common if _is_host(name)}


def _text(name: x509.GeneralName) -> str:
    if isinstance(name, x509.DNSName):
        return name.value.lower()
    return str(name.value) if isinstance(name, x509.IPAddress) else type(name).__name__


def _is_host(text: str) -> bool:
    """Say whether a client may take a common name for a host name; a word without a dot is usually just a label."""
    name = text.removeprefix("*.")
    return parse_address(name) is not None or ("." in name and parse_server_name(name) is not None)


def _listed(names: Sequence[str]) -> str:
    """List the first names, replacing invalid ones: the log needs neither those nor hundreds of names."""
    shown = [name if _is_name(name) else "an invalid host name" for name in names[:_MOST_NAMED]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _is_name(text: str) -> bool:
    return is_address(text) or parse_server_name(text.removeprefix("*.")) == text.removeprefix("*.")


def require_server(leaf: x509.Certificate) -> None:
    """Require a server certificate (RFC 5280 section 4.2.1), if it says what it is for. Raises ``CertificateError``."""
    for extension in leaf.extensions:
        match extension.value:
            case x509.BasicConstraints(ca=True):
                raise CertificateError("a CA certificate instead of a server certificate")
            case x509.ExtendedKeyUsage() as purposes if ExtendedKeyUsageOID.SERVER_AUTH not in purposes:
                raise CertificateError("a certificate whose extended key usage lacks serverAuth")
            case x509.KeyUsage(digital_signature=False):
                raise CertificateError("a certificate whose key usage lacks digitalSignature, which TLS needs")


def _require_no_staple(leaf: x509.Certificate) -> None:
    """Refuse a certificate that needs an OCSP response (RFC 7633): we send none, and did not ask for it."""
    for extension in leaf.extensions:
        if isinstance(extension.value, x509.TLSFeature):
            raise CertificateError(
                "a certificate that requires OCSP responses (must-staple), which this proxy never sends"
            )


def _require_time(certificate: Certificate, expected: Expected, now: float) -> None:
    leaf = certificate.leaf
    if (ahead := leaf.not_valid_before_utc.timestamp() - now) > CLOCK_SKEW:
        raise OfAnotherTime(
            f"{expected.ca} delivered a certificate that begins in {describe_duration(ahead)}; "
            "if that is wrong, the clock of this machine is wrong"
        )
    if (ended := now - leaf.not_valid_after_utc.timestamp()) >= 0:
        raise OfAnotherTime(
            f"{expected.ca} delivered a certificate that expired {describe_duration(ended)} ago; "
            "if that is wrong, the clock of this machine is wrong"
        )
    for link in certificate.chain:
        if not link.not_valid_before_utc.timestamp() - CLOCK_SKEW <= now < link.not_valid_after_utc.timestamp():
            raise CertificateError("a chain with a certificate that has expired or is not valid yet")


def _require_rest(certificate: Certificate, expected: Expected, now: float) -> None:
    """Refuse what is nearly over: by a clock that is ahead it would be renewed every few seconds (simulated)."""
    life, left = certificate.not_after - certificate.not_before, certificate.not_after - now
    if left < min(_PART_LEFT * life, _LEAST_LEFT):
        raise OfAnotherTime(
            f"{expected.ca} delivered a certificate that ends in {describe_duration(left)}, and began "
            f"{describe_duration(life - left)} ago; if that is wrong, the clock of this machine is wrong"
        )


def _require_path(certificate: Certificate, expected: Expected, now: float) -> None:
    """Require each certificate to be signed by the next one, as RFC 8555 section 9.1 and TLS 1.2 order them.

    The last one stands for the root that clients have. A leaf alone is accepted if a root signed it: if we know that
    root, or if nothing says that the CA has intermediates, and no better certificate is in use.
    """
    chain = certificate.chain or tuple(_issuers_of(certificate.leaf, expected.ca_bundle))
    if chain:
        _verify(certificate, chain, now)
    elif expected.chained or (expected.served is not None and expected.served.chain):
        raise CertificateError(
            "a certificate without its intermediate; if a root signed it, put that root into acme_ca_bundle"
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
        with contextlib.suppress(InvalidSignature, *UNREADABLE):
            leaf.verify_directly_issued_by(root)
            yield root
            return


def _require_signing(_: Policy, __: x509.Certificate, usage: x509.KeyUsage | None) -> None:
    if usage is not None and not usage.key_cert_sign:
        raise ValueError("the key usage of an intermediate lacks keyCertSign")


def _require_servers(_: Policy, __: x509.Certificate, purposes: x509.ExtendedKeyUsage | None) -> None:
    if purposes is not None and _FOR_SERVERS.isdisjoint(purposes):
        raise ValueError("the extended key usage of an intermediate lacks serverAuth")


# We check the path, signatures, algorithms, path lengths, name constraints and unknown critical extensions, but of the
# certificate profile only what TLS clients check: private CAs leave out much that the Web PKI requires.
_FOR_SERVERS = frozenset({ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE})
_OF_CAS = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _require_signing)
    .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _require_servers)
)
_OF_SERVERS = ExtensionPolicy.permit_all().require_present(x509.SubjectAlternativeName, Criticality.AGNOSTIC, None)


def _verify(certificate: Certificate, chain: Sequence[x509.Certificate], now: float) -> None:
    """Verify the path from the leaf to the last of ``chain`` (RFC 5280 section 6); it must use the whole chain."""
    begun = max(link.not_valid_before_utc.timestamp() for link in (certificate.leaf, *chain))
    at = datetime.datetime.fromtimestamp(max(now, begun), datetime.UTC)
    policy = PolicyBuilder().time(at).store(Store([chain[-1]])).max_chain_depth(_LONGEST_PATH)
    policy = policy.extension_policies(ca_policy=_OF_CAS, ee_policy=_OF_SERVERS)
    name = next(iter(certificate.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value))
    assert isinstance(name, x509.DNSName | x509.IPAddress)  # noqa: S101  # narrows: other kinds were refused
    try:
        path = policy.build_server_verifier(_concrete(name)).verify(certificate.leaf, list(chain[:-1]))
    except VerificationError as error:
        why = str(error).partition(" (encountered")[0]  # the rest is the CA's text
        raise CertificateError(f"a chain that clients do not accept: {why}") from error
    if path != [certificate.leaf, *chain]:
        raise CertificateError("a chain whose certificates are not in order, or do not belong together")


def _concrete(name: x509.DNSName | x509.IPAddress) -> x509.DNSName | x509.IPAddress:
    """Return a name that a client may ask for, which is never a wildcard."""
    return x509.DNSName(name.value.replace("*", "a", 1)) if isinstance(name, x509.DNSName) else name


def _require_better(certificate: Certificate, served: Certificate | None, now: float) -> None:
    """Refuse a certificate that ends before the one in use and is older, or has almost expired.

    Ending earlier is allowed: another profile or CA may have shorter lifetimes.
    """
    if served is None or certificate.not_after >= served.not_after:
        return
    if certificate.not_after - now < _LEAST_LEFT:
        left, lives = describe_duration(certificate.not_after - now), describe_duration(served.not_after - now)
        raise CertificateError(f"a certificate that expires in {left}, while the one in use lasts {lives} more")
    if certificate.precedes(served):
        raise CertificateError("a certificate that is older than the one in use, and expires before it")
