"""How keys and values are stored in a folder: names, and the bytes of a record. Pure: it never touches a disk.

Names. The parts of a key become folders and the last one a file, percent-encoded where a character could have a meaning
to a shell or a filesystem. ``=`` is always encoded, so that it can mark the kind of a name:

    certificates/example.com      ->  certificates/example.com=v     a value
    certificates/*.example.com/x  ->  certificates/%2A.example.com/x=v
    a part of 84 or more          ->  first84characters=c/rest=v     a part in pieces: file names end at 255 bytes

So ``a`` and ``a/b`` never clash, no valid key is too long, and names that begin with a dot are free for locks.

Records. A header (magic, version, expiry, length, digest of key and all) before the value. An expiring record has an
odd size, any other an even one: so a listing can tell from the size which records it need not open.

This module knows nothing about locks, the owners of files, or the meaning of any key.
"""

import re
from functools import lru_cache
from hashlib import blake2b
from math import inf
from os import sep
from struct import Struct
from typing import NamedTuple

from acme_storage.checks import MAX_VALUE

_PIECE = 84  # times three (all of it encoded) plus "=c" is 254 bytes, and NAME_MAX is 255
_UNSAFE = re.compile(r"^\.|[^A-Za-z0-9._-]")
_KNOWN = 1_024  # cached paths: each key is used several times while an order works on it
_ENCODED = re.compile(r"%(2[ABE]|3[AD]|40|7E)")  # what _encode makes of a key: * + . : = @ ~


def _encode(text: str) -> str:
    return _UNSAFE.sub(lambda unsafe: f"%{ord(unsafe[0]):02X}", text)


def _decode(stem: str) -> str:
    return _ENCODED.sub(lambda code: chr(int(code[1], 16)), stem)


def _pieces(part: str) -> list[str]:
    # Every piece but the last has exactly _PIECE characters, and the last one fewer, maybe none. So all keys whose part
    # begins with the same 84 characters are in one folder, and folders can be listed one after the other.
    return [part[start : start + _PIECE] for start in range(0, len(part) + 1, _PIECE)]


@lru_cache(_KNOWN)
def path_of(key: str) -> str:
    """Return the path of a key's file, relative to the store's folder."""
    folder, _, part = key.rpartition("/")
    *before, last = _pieces(part)
    return folder_of(f"{folder}/" if folder else "") + "".join(map(name_of, before)) + name_of(last)


@lru_cache(_KNOWN)
def folder_of(prefix: str) -> str:
    """Return the path, empty or with a separator at its end, of the folder that holds a prefix's keys."""
    return "".join(
        "".join(map(name_of, before)) + name_of(f"{last}/")
        for *before, last in (_pieces(part) for part in prefix.split("/")[:-1])
    )


def is_value(text: str) -> bool:
    """Say whether an entry's text (see ``text_of``) means a value; else it means a folder."""
    return len(text) < _PIECE and not text.endswith("/")


def name_of(text: str) -> str:
    """Return the name of an entry from its text: a file's, or a folder's with the system's separator at its end."""
    if is_value(text):
        return f"{_encode(text)}=v"
    if text.endswith("/"):
        return f"{_encode(text[:-1]) or '='}{sep}"
    return f"{_encode(text)}=c{sep}"


def text_of(name: str) -> str | None:
    """Return what an entry of a folder adds to the key, the inverse of ``name_of``; None for a name that is not ours.

    For a value this is the rest of the key, for a folder that with the slash, for a part in pieces the 84 characters.
    Sorting entries by these texts sorts the keys in and below them. (A foreign name may pass; then there is no file at
    the name that ``name_of`` returns for it.)
    """
    if name.startswith("."):
        return None
    stem, mark, kind = name.partition("=")
    text = stem
    if "%" in stem:
        text = _decode(stem)
        if _encode(text) != stem:
            return None
    if kind == "v":
        return text if is_value(text) else None
    if kind == "c":
        return text if len(text) == _PIECE else None
    ours = len(text) < _PIECE and (not mark or name == "=")
    return f"{text}/" if ours else None


class Record(NamedTuple):
    """A value, and the time in seconds when it expires (infinity: never)."""

    value: bytes
    expires: float


_HEADER = Struct(">4sBdI16s")  # magic, version, expires, length of the value, digest
_MAGIC = b"acme"
_VERSION = 1
MAX_RECORD = _HEADER.size + MAX_VALUE + 1


def pack(key: str, record: Record) -> bytes:
    """Return the bytes of a record's file. The digest covers the key: a file moved to another name is damaged."""
    fields = (_MAGIC, _VERSION, record.expires, len(record.value))
    undigested = _HEADER.pack(*fields, b"")
    digest = blake2b(key.encode() + undigested + record.value, digest_size=16).digest()
    data = _HEADER.pack(*fields, digest) + record.value
    odd = record.expires != inf
    return data if len(data) % 2 == odd else data + b"\0"


def may_expire(size: int) -> bool:
    """Say whether a file of this size can be an expiring record, or the empty remains of one (see ``unpack``)."""
    return size % 2 == 1 or size == 0


def unpack(key: str, data: bytes) -> Record | None:
    """Return the record in a file's bytes, None for the remains of a power cut; ``ValueError`` says what is wrong.

    Expiring records are written without fsync, so a power cut can leave such a file empty, zero, or with some blocks
    missing: it counts as absent, as it soon would have been. For a permanent record this cannot happen: it is corrupt.
    """
    if not any(data):
        return None
    if len(data) < _HEADER.size or not data.startswith(_MAGIC):
        raise ValueError("is not a record of this store")
    _, version, expires, length, _ = _HEADER.unpack_from(data)
    if version != _VERSION:
        raise ValueError(f"has format {version}, and this program knows only format {_VERSION}")
    record = Record(data[_HEADER.size : _HEADER.size + length], expires)
    if pack(key, record) == data:
        return record
    if expires != inf:
        return None
    raise ValueError("is damaged, cut short, or was moved from another key")
