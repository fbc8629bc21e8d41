"""A proof of control: what a CA must find to validate a name (RFC 8555 section 8).

This module knows the value; it must not know how it is computed, kept or shown.
"""

from dataclasses import dataclass

from cryptography import x509

# What is found in DNS, the only place where control of a wildcard can be shown; and what of it is put there for each
# order. A name in DNS holds any number of values, so these stand beside those of other orders; anything else is alone.
TXT_TYPES = frozenset({"dns-01", "dns-account-01"})
# What is shown for one account alone: another account, at the same CA or elsewhere, shows something else.
ACCOUNT_TYPES = frozenset({"dns-account-01", "dns-persist-01"})
DNS_TYPES = TXT_TYPES | {"dns-persist-01"}

# What a validator of tls-alpn-01 offers, and nothing else; and the certificate's extension where it looks for the
# proof (id-pe-acmeIdentifier): RFC 8737 sections 3 and 6.1.
ACME_TLS = "acme-tls/1"
ACME_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
_OCTET_STRING_32 = b"\x04\x20"


@dataclass(frozen=True, slots=True)
class Proof:
    """``type`` is the challenge's (``http-01``, …), ``location`` where the CA looks (a token, a name).

    ``value`` is what it must find. Location and value are fit for a storage key, but for a record that stands
    (dns-persist-01), which is never kept; none of it is secret.
    """

    type: str
    location: str
    value: str


def acme_identifier(digest: str) -> x509.UnrecognizedExtension:
    """Return the extension that shows the proof of a tls-alpn-01 challenge, which is 32 bytes in hexadecimal."""
    return x509.UnrecognizedExtension(ACME_IDENTIFIER, _OCTET_STRING_32 + bytes.fromhex(digest))
