"""Encryption: records are sealed (encrypted and bound to their storage key) before they leave the process.

A sealed record is JSON: {"sealed": 1, "key_id": ID, "sealed_key": DATA}. "sealed" is the version of this format, ID
says which key opens it (16 hexadecimal digits), and DATA is the base64 of a random nonce (96 bits) and of the whole
record in AES-256-GCM. The storage key is the associated data: a record that is copied to another key does not open.
The first format only encrypted the private key, with Fernet, in the field "sealed_key"; it is still read. A node that
only knows that format finds a "sealed_key" here that does not open, and so does not touch the record.

If nodes list keys without reading values, the storage key itself ends in an authentication code (``sign_key``).

This module knows the formats and the keys; it must not know where records are stored or what they mean.
"""

import base64
import binascii
import hmac
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from cryptography.exceptions import InvalidTag
from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..core.errors import CertificateError, DecryptionFailed, RecordRefused
from ..core.versions import reject_newer
from .keys import ACCOUNTS_PREFIX, CERTIFICATES_PREFIX, COMPROMISED_PREFIX

_FORMAT = 1
_BEGIN = b'{"sealed": '
_HEAD = 200
_NONCE = 12
_MARK = 32  # hexadecimal digits: 128 bits of HMAC-SHA-256
_SIGNED = re.compile(rf"~[0-9a-f]{{{_MARK}}}\Z")
_CONTEXT = b"mitmproxy-acme sealed record 1: "
# These may have been stored before there was a key. All other records live for an hour at most, or are too dangerous
# (compromised/ gets certificates revoked): with a key, only sealed ones count.
_MAY_BE_CLEAR = (CERTIFICATES_PREFIX, ACCOUNTS_PREFIX)
# Data nodes do not use these: accounts, and compromised keys, which other nodes get revoked.
_OF_ACCOUNTS = (ACCOUNTS_PREFIX, COMPROMISED_PREFIX)
_FIRST_VERSION = 1


class CipherSettings(Protocol):
    """What ``Config`` says about encryption."""

    @property
    def storage_keys(self) -> Sequence[str]: ...

    @property
    def account_storage_keys(self) -> Sequence[str]: ...

    @property
    def storage_sealed_only(self) -> bool: ...


class RecordCipher:
    """Seals and opens records with the keys of the options: the first seals, all of them open. Safe from any thread.

    ``account_keys`` replace ``keys`` for records that only ordering nodes need (``_OF_ACCOUNTS``). ``sealed_only``
    refuses records in clear text, in the first format, and, with ``account_keys``, account records that are sealed by
    ``keys``. Without keys nothing is sealed, and sealed records cannot be opened.
    """

    def __init__(self, keys: Sequence[str], *, account_keys: Sequence[str] = (), sealed_only: bool = False) -> None:
        """Raises ``ValueError`` for a key that is not a Fernet key; ``Config`` has checked them before."""
        self._keys = tuple(map(_Key.of, keys))
        self._account_keys = tuple(map(_Key.of, account_keys))
        self._sealed_only = sealed_only

    @classmethod
    def of(cls, settings: CipherSettings, *, sealed_only: bool | None = None) -> Self:
        """Return the cipher of the options; ``sealed_only`` overrides theirs."""
        wanted = settings.storage_sealed_only if sealed_only is None else sealed_only
        return cls(settings.storage_keys, account_keys=settings.account_storage_keys, sealed_only=wanted)

    def seal(self, key: str, record: bytes) -> bytes:
        """Return a record as it is stored under ``key``: sealed, or unchanged without a sealing key."""
        keys = self._sealing_keys(key)
        return keys[0].seal(key, record) if keys else record

    def open(self, key: str, record: bytes) -> bytes:
        """Return the record that was sealed for ``key``, or ``record`` itself if it may be in clear text.

        Raises ``RecordRefused`` for a record that must not be used or replaced (``DecryptionFailed`` if no key opens
        it), and ``CertificateError`` for one that was cut, changed, or copied from another key.
        """
        if record.startswith(_BEGIN):
            return self._opened(key, _fields(record))
        if b'"sealed"' in record[:_HEAD]:  # another release may order the fields differently
            reject_newer({"version": _fields(record).get("sealed", 0)}, _FORMAT, f"the record {key}")
        if not key.startswith(_MAY_BE_CLEAR):
            if self._sealing_keys(key):
                raise RecordRefused(f"the record {key} is not sealed, so anyone may have written it; it is not used")
            return record
        fields = _fields(record)
        if self._sealed_only:
            raise RecordRefused(
                f"the record {key} is not sealed, and acme_storage_sealed_only requires it: it is neither used nor "
                "replaced; if it is yours, seal it with mitmproxy-acme rotate-storage-key"
            )
        return self._opened_first_format(key, fields, record)

    def is_current(self, key: str, record: bytes) -> bool:
        """Say whether the newest key sealed it, and it opens. Raises ``CertificateError`` for a broken record."""
        keys = self._sealing_keys(key)
        if not (record.startswith(_BEGIN) and keys and _fields(record).get("key_id") == keys[0].id):
            return False
        self.open(key, record)
        return True

    def sign_key(self, key: str) -> str:
        """Return ``key`` with an authentication code behind it; unchanged without a key to sign with."""
        return f"{key}~{self._keys[0].mark(key)}" if self._keys else key

    def signed_keys(self, key: str) -> tuple[str, ...]:
        """Return all results that ``sign_key`` may have on a node whose newest key is any of ours."""
        return tuple(f"{key}~{own.mark(key)}" for own in self._keys) or (key,)

    def verify_key(self, key: str) -> str | None:
        """Return the key that ``sign_key`` signed; None unless one of our keys signed it, or no key is set."""
        if not self._keys:
            return None if _SIGNED.search(key) else key
        signed, _, mark = key.rpartition("~")
        return signed if any(hmac.compare_digest(own.mark(signed), mark) for own in self._keys) else None

    def _sealing_keys(self, key: str) -> "tuple[_Key, ...]":
        return (self._account_keys if key.startswith(_OF_ACCOUNTS) else ()) or self._keys

    def _opening_keys(self, key: str) -> "tuple[_Key, ...]":
        # Accounts may still be sealed by the general keys, from before they had keys of their own.
        return self._sealing_keys(key) if self._sealed_only else (*self._sealing_keys(key), *self._keys)

    def _opened(self, key: str, fields: dict[str, Any]) -> bytes:
        reject_newer({"version": fields["sealed"]}, _FORMAT, f"the record {key}")
        id, data = fields.get("key_id"), fields.get("sealed_key")
        if not (isinstance(id, str) and isinstance(data, str)):
            raise CertificateError(f"the record {key} is broken: fields of a sealed record are missing")
        own = next((own for own in self._opening_keys(key) if own.id == id), None)
        if own is None:
            raise DecryptionFailed(
                f"the record {key} is sealed {self._why(key)}; until then it is neither used nor replaced"
            )
        try:
            return own.open(key, base64.b64decode(data, validate=True))
        except (InvalidTag, binascii.Error, ValueError):
            raise CertificateError(
                f"the record {key} is broken: it was changed after sealing, or copied from another key"
            ) from None

    def _opened_first_format(self, key: str, fields: dict[str, Any], record: bytes) -> bytes:
        reject_newer(fields, _FIRST_VERSION, f"the record {key}")
        token = fields.pop("sealed_key", None)
        if token is None:
            if not isinstance(fields.get("key"), str):
                raise CertificateError("the record is broken: it has no private key")
            return record
        for own in self._opening_keys(key):
            if (secret := own.open_token(token)) is not None:
                return json.dumps(fields | {"key": secret}).encode()
        raise DecryptionFailed(
            f"the record {key} is sealed {self._why(key)}; until then it is neither used nor replaced"
        )

    def _why(self, key: str) -> str:
        of_accounts = key.startswith(_OF_ACCOUNTS)
        option = "acme_account_storage_key" if of_accounts and self._account_keys else "acme_storage_key"
        here = ", in it or in acme_account_storage_key" if of_accounts and not self._account_keys else ""
        if not self._opening_keys(key):
            return f"but {option} is not set: set the key that sealed it{here}"
        return f"by a key that {option} lacks: add the key that sealed it{here}"


@dataclass(frozen=True, slots=True)
class _Key:
    """One key of the options, and the keys derived from it, one for each algorithm (RFC 5869)."""

    id: str
    _fernet: Fernet = field(repr=False)
    _aead: AESGCM = field(repr=False)
    _mac: bytes = field(repr=False)

    @classmethod
    def of(cls, text: str) -> Self:
        fernet, secret = Fernet(text), base64.urlsafe_b64decode(text)
        return cls(
            _derived(secret, b"key id", 8).hex(),
            fernet,
            AESGCM(_derived(secret, b"AES-256-GCM", 32)),
            _derived(secret, b"HMAC-SHA-256 of storage keys", 32),
        )

    def seal(self, key: str, record: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE)
        data = nonce + self._aead.encrypt(nonce, record, _CONTEXT + key.encode())
        fields = {"sealed": _FORMAT, "key_id": self.id, "sealed_key": base64.b64encode(data).decode()}
        return json.dumps(fields).encode()

    def open(self, key: str, data: bytes) -> bytes:
        """Raises ``InvalidTag`` unless this key sealed it for ``key``, ``ValueError`` if it is too short."""
        return self._aead.decrypt(data[:_NONCE], data[_NONCE:], _CONTEXT + key.encode())

    def open_token(self, token: object) -> str | None:
        """Return the content of a token of the first format; None unless this key made it."""
        try:
            return self._fernet.decrypt(str(token)).decode()
        except (InvalidToken, ValueError):  # ValueError if it is not ASCII
            return None

    def mark(self, key: str) -> str:
        return hmac.digest(self._mac, key.encode(), "sha256").hex()[:_MARK]


def _derived(secret: bytes, purpose: bytes, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, salt=None, info=_CONTEXT + purpose).derive(secret)


def _fields(record: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(record)
    except (ValueError, RecursionError) as error:
        # Only the class of the error: its text may quote the record, which may hold a private key.
        raise CertificateError(f"the record is broken ({type(error).__name__})") from None
    if not isinstance(fields, dict):
        raise CertificateError("the record is broken: it is not a JSON object")
    return fields
