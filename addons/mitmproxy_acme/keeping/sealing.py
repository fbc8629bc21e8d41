"""Sealing: the private key inside a record is encrypted before it leaves the process (acme_storage_key).

This module knows Fernet and the one field of a record that is secret; it must not know where records are stored or
what else is in them. The rest stays readable, so that names and dates can be listed without the key.
"""

import json
from collections.abc import Sequence
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from ..errors import CertificateError, Sealed

# A record has the one or the other: its private key as ``Certificate`` and ``Account`` write it, or that key sealed.
_CLEAR, _SEALED = "key", "sealed_key"


class Sealing:
    """Any number of Fernet keys, newest first: the first one seals, each one opens. Safe from any thread.

    With no key nothing is sealed, and what is sealed cannot be opened.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        """Raises ``ValueError`` for what is not a Fernet key; ``Config`` has looked before."""
        self._keys = [Fernet(key) for key in keys]

    def seal(self, record: bytes) -> bytes:
        """Return a record in clear with its private key sealed; as it is where it has none, or there is no key here.

        Raises ``CertificateError`` for what is no record.
        """
        fields = _fields(record)
        secret = fields.pop(_CLEAR, None)
        if not (isinstance(secret, str) and secret.isascii()):
            raise CertificateError("the record is broken: it has no key")
        if not (secret and self._keys):  # of an operator's own account key nothing is stored
            return record
        return _record(fields | {_SEALED: self._keys[0].encrypt(secret.encode()).decode()})

    def open(self, record: bytes, name: str) -> bytes:
        """Return a record in clear, sealed or not; ``name`` is what a message calls it.

        Raises ``Sealed`` where no key opens it, ``CertificateError`` for what is no record.
        """
        fields = _fields(record)
        token = fields.pop(_SEALED, None)
        if token is None:
            return record
        if (secret := _decrypted(self._keys, token)) is None:
            raise Sealed(f"the record {name} is sealed {self._why()}; until then it is neither used nor replaced")
        return _record(fields | {_CLEAR: secret})

    def is_current(self, record: bytes) -> bool:
        """Say whether it is sealed by the newest key. Raises ``CertificateError`` for what is no record."""
        token = _fields(record).get(_SEALED)
        return token is not None and _decrypted(self._keys[:1], token) is not None

    def _why(self) -> str:
        if not self._keys:
            return "and acme_storage_key is not set: give the key that sealed it"
        return "by none of the keys in acme_storage_key: add the one that sealed it"


def _decrypted(keys: Sequence[Fernet], token: object) -> str | None:
    """Return what one of ``keys`` sealed; None where none of them did."""
    if not keys:
        return None
    try:
        return MultiFernet(keys).decrypt(str(token)).decode()
    except (InvalidToken, ValueError):  # the latter where it is not even ASCII
        return None


def _fields(record: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(record)
    except (ValueError, RecursionError) as error:
        # Only the class of the error: its text may quote the record, and the record may hold a private key.
        raise CertificateError(f"the record is broken ({type(error).__name__})") from None
    if not isinstance(fields, dict):
        raise CertificateError("the record is broken: it is no list of fields")
    return fields


def _record(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode()
