"""Sealing: records are encrypted, and bound to the key they are stored under, before they leave the process.

A sealed record is JSON: {"sealed": 1, "key_id": ID, "sealed_key": DATA}. "sealed" is the version of this format, ID
says which key opens it (16 hexadecimal digits), and DATA is the base64 of a random nonce (96 bits) and of the whole
record in AES-256-GCM. The path that it is stored under is the associated data: copied to another, it does not open.
In the first format only the private key was encrypted, by Fernet, in the field "sealed_key"; it is still read. A node
that knows only that one finds a "sealed_key" here that does not open, and so leaves the record alone.

Where a listing must do without reading values, the storage key itself ends in an authentication code (``sign_key``).

This module knows the formats and the keys; it must not know where records are stored or what is in them.
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
from .keys import account_prefix, certificate_prefix, compromised_prefix

_FORMAT = 1
_BEGIN = b'{"sealed": '
_HEAD = 200
_NONCE = 12
_MARK = 32  # hexadecimal digits: 128 bits of HMAC-SHA-256
_SIGNED = re.compile(rf"~[0-9a-f]{{{_MARK}}}\Z")
_CONTEXT = b"mitmproxy-acme sealed record 1: "
# What these are may lie there since before there was a key. All else lives for an hour at most, or is too dangerous
# (compromised/ has certificates revoked): where there is a key, only what it sealed counts.
_MAY_BE_CLEAR = (certificate_prefix(), account_prefix())
# What data nodes have no part in: accounts, and stolen keys, which other nodes have revoked.
_OF_ACCOUNTS = (account_prefix(), compromised_prefix())
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
    """The keys of the options, newest first: the first one seals, each one opens. Safe from any thread.

    ``account_keys`` are for what only nodes that order need (``_OF_ACCOUNTS``), instead of ``keys``. ``sealed_only``
    refuses records that are in clear, in the first format, or, if of accounts, sealed by ``keys`` where there are
    ``account_keys``. With no key nothing is sealed, and what is sealed cannot be opened.
    """

    def __init__(self, keys: Sequence[str], *, account_keys: Sequence[str] = (), sealed_only: bool = False) -> None:
        """Raises ``ValueError`` for what is not a Fernet key; ``Config`` has looked before."""
        self._keys = tuple(map(_Key.of, keys))
        self._account_keys = tuple(map(_Key.of, account_keys))
        self._sealed_only = sealed_only

    @classmethod
    def of(cls, settings: CipherSettings, *, sealed_only: bool | None = None) -> Self:
        """Return that of the options; ``sealed_only`` stands in for theirs."""
        wanted = settings.storage_sealed_only if sealed_only is None else sealed_only
        return cls(settings.storage_keys, account_keys=settings.account_storage_keys, sealed_only=wanted)

    def seal(self, key: str, record: bytes) -> bytes:
        """Return a record as it is to be stored under ``key``: sealed, or as it is where there is no key to seal by."""
        keys = self._sealing_keys(key)
        return keys[0].seal(key, record) if keys else record

    def open(self, key: str, record: bytes) -> bytes:
        """Return what was sealed for ``key``, or the record itself where it may be in clear.

        Raises ``RecordRefused`` for a record that must not be used or replaced (``DecryptionFailed`` if no key opens
        it), and ``CertificateError`` for one that was cut, changed, or copied from another key.
        """
        if record.startswith(_BEGIN):
            return self._opened(key, _fields(record))
        if b'"sealed"' in record[:_HEAD]:  # as another release may spell it
            reject_newer({"version": _fields(record).get("sealed", 0)}, _FORMAT, f"the record {key}")
        if not key.startswith(_MAY_BE_CLEAR):
            if self._sealing_keys(key):
                raise RecordRefused(f"the record {key} is not sealed, so anybody may have written it; it is not used")
            return record
        fields = _fields(record)
        if self._sealed_only:
            raise RecordRefused(
                f"the record {key} is not sealed as acme_storage_sealed_only demands; until it is "
                "(mitmproxy-acme rotate-storage-key) it is neither used nor replaced"
            )
        return self._opened_first_format(key, fields, record)

    def is_current(self, key: str, record: bytes) -> bool:
        """Say whether it is sealed by the newest key, and opens. Raises ``CertificateError`` for what is broken."""
        keys = self._sealing_keys(key)
        if not (record.startswith(_BEGIN) and keys and _fields(record).get("key_id") == keys[0].id):
            return False
        self.open(key, record)
        return True

    def sign_key(self, key: str) -> str:
        """Return ``key`` with the code that shows who wrote it behind it; as it is where there is no key to sign by."""
        return f"{key}~{self._keys[0].mark(key)}" if self._keys else key

    def signed_keys(self, key: str) -> tuple[str, ...]:
        """Return all that ``sign_key`` may have made of ``key``, on a node whose newest key is another of ours."""
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
        # Accounts may lie there as they were sealed before they had keys of their own.
        return self._sealing_keys(key) if self._sealed_only else (*self._sealing_keys(key), *self._keys)

    def _opened(self, key: str, fields: dict[str, Any]) -> bytes:
        reject_newer({"version": fields["sealed"]}, _FORMAT, f"the record {key}")
        id, data = fields.get("key_id"), fields.get("sealed_key")
        if not (isinstance(id, str) and isinstance(data, str)):
            raise CertificateError(f"the record {key} is broken: it lacks what a sealed record has")
        own = next((own for own in self._opening_keys(key) if own.id == id), None)
        if own is None:
            raise DecryptionFailed(
                f"the record {key} is sealed {self._why(key)}; until then it is neither used nor replaced"
            )
        try:
            return own.open(key, base64.b64decode(data, validate=True))
        except (InvalidTag, binascii.Error, ValueError):
            raise CertificateError(
                f"the record {key} is broken: it was changed after it was sealed, or copied from another key"
            ) from None

    def _opened_first_format(self, key: str, fields: dict[str, Any], record: bytes) -> bytes:
        reject_newer(fields, _FIRST_VERSION, f"the record {key}")
        token = fields.pop("sealed_key", None)
        if token is None:
            if not isinstance(fields.get("key"), str):
                raise CertificateError("the record is broken: it has no key")
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
            return f"and {option} is not set: give the key that sealed it{here}"
        return f"by none of the keys in {option}: add the one that sealed it{here}"


@dataclass(frozen=True, slots=True)
class _Key:
    """One key of the options, and what is derived from it: each algorithm has a key of its own (RFC 5869)."""

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
        """Raises ``InvalidTag`` for what this key did not seal for ``key``, ``ValueError`` for what is too short."""
        return self._aead.decrypt(data[:_NONCE], data[_NONCE:], _CONTEXT + key.encode())

    def open_token(self, token: object) -> str | None:
        """Return what a token of the first format holds; None where this key did not make it."""
        try:
            return self._fernet.decrypt(str(token)).decode()
        except (InvalidToken, ValueError):  # the latter where it is not even ASCII
            return None

    def mark(self, key: str) -> str:
        return hmac.digest(self._mac, key.encode(), "sha256").hex()[:_MARK]


def _derived(secret: bytes, purpose: bytes, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, salt=None, info=_CONTEXT + purpose).derive(secret)


def _fields(record: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(record)
    except (ValueError, RecursionError) as error:
        # Only the class of the error: its text may quote the record, and the record may hold a private key.
        raise CertificateError(f"the record is broken ({type(error).__name__})") from None
    if not isinstance(fields, dict):
        raise CertificateError("the record is broken: it is no list of fields")
    return fields
