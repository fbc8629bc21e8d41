"""The record of a certificate whose key is compromised, kept until it is revoked.

It differs from a certificate's own record, so that a copy of one can never get that certificate revoked. This module
knows the record; it must not know where it is stored, or how a certificate is revoked.
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
    """Read what ``to_record`` wrote.

    Raises ``RecordRefused`` if a later release wrote it, ``CertificateError`` for anything else.
    """
    try:
        fields = json.loads(record)
        reject_newer(fields, _VERSION, f"the record of the compromised certificate of {id}")
        kept = fields["compromised"].encode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CertificateError(f"it is not the record of a compromised key ({type(error).__name__})") from None
    return Certificate.from_record(id, kept)
