"""A proof of control: what a CA must find to validate a name (RFC 8555 section 8).

This module knows the value; it must not know how it is computed, stored or shown.
"""

from dataclasses import dataclass

from cryptography import x509

# DNS challenges whose records exist for one order; only a DNS challenge can validate a wildcard. A DNS name holds any
# number of values, so records of several orders coexist; other proofs are alone at their location.
TXT_TYPES = frozenset({"dns-01", "dns-account-01"})
# Challenges whose proof is valid for one account only: another account, at the same CA or elsewhere, needs another.
ACCOUNT_TYPES = frozenset({"dns-account-01", "dns-persist-01"})
DNS_TYPES = TXT_TYPES | {"dns-persist-01"}

# The ALPN protocol that a validator of tls-alpn-01 offers, alone; and the certificate extension that holds the proof
# (id-pe-acmeIdentifier): RFC 8737 sections 3 and 6.1.
ACME_TLS = "acme-tls/1"
ACME_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
_OCTET_STRING_32 = b"\x04\x20"


@dataclass(frozen=True, slots=True)
class Proof:
    """``type`` is the challenge's (``http-01``, …), ``location`` where the CA looks: a token, or a name.

    ``value`` is what it must find there. Both can be part of a storage key, except those of a dns-persist-01 record,
    which is never stored. Nothing here is secret.
    """

    type: str
    location: str
    value: str


def acme_identifier(digest: str) -> x509.UnrecognizedExtension:
    """Return the extension that holds the proof of a tls-alpn-01 challenge: 32 bytes, given in hexadecimal."""
    return x509.UnrecognizedExtension(ACME_IDENTIFIER, _OCTET_STRING_32 + bytes.fromhex(digest))
