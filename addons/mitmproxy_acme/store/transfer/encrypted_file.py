"""One encrypted file: bytes in order, under a passphrase, refused as a whole if one bit of it is not as written.

    line    b"mitmproxy-acme backup 1\\n": the program, and the version of this format
    salt    32 random bytes
    chunks  each up to 64 KiB in AES-256-GCM, with 16 bytes of authentication; all but the last are full

The key is scrypt's of passphrase and salt (RFC 7914), so each file has its own. The nonce of a chunk is its number and
whether it is the last, and the line is part of what is authenticated: chunks cannot be changed, reordered, left out,
repeated, or cut off at the end (the STREAM construction, https://eprint.iacr.org/2015/189).

This module knows bytes; it must not know what they mean.
"""

import secrets
from collections.abc import Callable, Iterator
from typing import IO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from ...core.errors import SourceError

_NAME = b"mitmproxy-acme backup "
_LINE = _NAME + b"1\n"
_LONGEST_LINE = 40
_SALT, _TAG, CHUNK = 32, 16, 64 * 1024
# 128 MiB and 0.4 s for each guess. Part of the format's version, and not of the file: a forged file could ask for more.
_COST = 2**17

type DeriveKey = Callable[[bytes], bytes]
"""From a salt to the key of a file."""


def key_from(passphrase: str) -> DeriveKey:
    """Return what makes the key of a file with this passphrase; it takes 0.4 s and 128 MiB."""
    return lambda salt: Scrypt(salt=salt, length=32, n=_COST, r=8, p=1).derive(passphrase.encode())


def is_backup(file: IO[bytes]) -> bool:
    """Say whether a file begins like one of any version."""
    return file.read(len(_NAME)) == _NAME


class EncryptedWriter:
    """Writes to ``file`` what ``write`` is given. Without ``close`` the file is incomplete, and is refused."""

    def __init__(self, file: IO[bytes], derive: DeriveKey) -> None:
        salt = secrets.token_bytes(_SALT)
        self._file = file
        self._key = AESGCM(derive(salt))
        self._number = 0
        self._waiting = bytearray()
        file.write(_LINE + salt)

    def write(self, data: bytes) -> None:
        self._waiting += data
        while len(self._waiting) > CHUNK:  # not a full one that may be the last
            self._write_chunk(bytes(self._waiting[:CHUNK]), last=False)
            del self._waiting[:CHUNK]

    def close(self) -> None:
        """Write the last chunk. The file itself stays open."""
        self._write_chunk(bytes(self._waiting), last=True)

    def _write_chunk(self, data: bytes, *, last: bool) -> None:
        self._file.write(self._key.encrypt(_nonce(self._number, last=last), data, _LINE))
        self._number += 1


class EncryptedReader:
    """Reads the file that ``EncryptedWriter`` wrote; the key is derived once."""

    def __init__(self, file: IO[bytes], derive: DeriveKey) -> None:
        """Raises ``SourceError`` for a file that is no backup, or of a later version."""
        file.seek(0)
        line = file.readline(_LONGEST_LINE)
        if not line.startswith(_NAME):
            raise SourceError("it is not a backup that mitmproxy-acme wrote")
        if line != _LINE:
            raise SourceError("a later release wrote this backup, or its first line is damaged; use that release")
        salt = file.read(_SALT)
        if len(salt) < _SALT:
            raise SourceError("the file is cut short: even its beginning is not complete")
        self._file = file
        self._start = file.tell()
        self._key = AESGCM(derive(salt))

    def chunks(self) -> Iterator[bytes]:
        """Yield the content from its beginning. Raises ``SourceError`` at the first chunk that is not as written.

        What was yielded before is authentic, and yet not the whole: read to the end before you use any of it.
        """
        self._file.seek(self._start)
        number, data = 0, self._file.read(CHUNK + _TAG)
        while True:
            following = self._file.read(CHUNK + _TAG)
            yield self._open(data, number, last=not following)
            if not following:
                return
            number, data = number + 1, following

    def lines(self, longest: int) -> Iterator[bytes]:
        """Yield the lines of the content without their ends. Raises ``SourceError``, also for one over ``longest``."""
        rest = b""
        for chunk in self.chunks():
            *whole, rest = (rest + chunk).split(b"\n")
            if len(rest) > longest:
                raise SourceError("the backup holds a record that is too long")
            yield from whole
        if rest:
            raise SourceError("the backup ends in the middle of a record")

    def _open(self, data: bytes, number: int, *, last: bool) -> bytes:
        try:
            return self._key.decrypt(_nonce(number, last=last), data, _LINE)
        except InvalidTag:
            pass
        if number == 0:
            raise SourceError("the passphrase is wrong, or the file was damaged or cut short")
        raise SourceError("the file was damaged, changed or cut short")


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])
