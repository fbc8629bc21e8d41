"""Stolen: the record of a certificate whose key is stolen, kept until it is revoked.

It is not a certificate's own record: a copy of one must never have that certificate revoked. This module knows the
record; it must not know where it is stored, or how a certificate is revoked.
"""

import json

from ..core.certificate import Certificate
from ..core.errors import CertificateError
from ..core.names import ServerName
from ..core.versions import reject_newer

_VERSION = 1


def to_record(certificate: Certificate) -> bytes:
    return json.dumps({"version": _VERSION, "compromised": certificate.to_record().decode()}).encode()


def from_record(id: ServerName, record: bytes) -> Certificate:
    """Read what ``to_record`` wrote. Raises ``RecordRefused`` for what a later release wrote, and
    ``CertificateError`` for anything else.
    """
    try:
        fields = json.loads(record)
        reject_newer(fields, _VERSION, f"what was kept to revoke {id}")
        kept = fields["compromised"].encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CertificateError(f"it is no record of a stolen key ({type(error).__name__})") from None
    return Certificate.from_record(id, kept)
