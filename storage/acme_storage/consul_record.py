"""The bytes of a Consul value: a header before our value, and how Consul's answer is read. Pure.

The header has a mark that is unique to each write, so that a writer can recognise its own write, and a digest of
everything including the key. This module knows nothing about connections, clocks or layouts.
"""

from hashlib import blake2b
from struct import Struct
from typing import Any, NamedTuple

from acme_storage.checks import MAX_VALUE

_HEADER = Struct(">4s8s8s")  # magic and version, mark of this write, digest
_MAGIC = b"acm1"


class Record(NamedTuple):
    """The record at a key: ``value`` None if it is not ours, ``modified`` (the ModifyIndex) 0 if there is none."""

    value: bytes | None = None
    expires: int = 0
    modified: int = 0
    unique: bytes = b""


def pack(key: str, value: bytes, expires: int, unique: bytes) -> bytes:
    """Return the bytes to store."""
    digest = blake2b(b"%d %s\0%s%s" % (expires, key.encode(), unique, value), digest_size=8).digest()
    return _HEADER.pack(_MAGIC, unique, digest) + value


def unpack(key: str, item: dict[str, Any] | None) -> Record:
    """Return the record in Consul's answer."""
    if item is None:
        return Record()
    data, expires, index = item["Value"] or b"", item["Flags"], item["ModifyIndex"]
    value, unique = data[_HEADER.size :], data[4:12]
    ours = data.startswith(_MAGIC) and len(value) <= MAX_VALUE and pack(key, value, expires, unique) == data
    return Record(value, expires, index, unique) if ours else Record(None, 0, index)
