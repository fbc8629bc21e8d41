"""Records in Vault: paths, and the fields of a version. Pure.

Vault refuses ``..`` anywhere in a path and reads ``*`` and ``+`` in policies as patterns, so such characters are
written as ``=2A``. A key and a folder may have the same name.

A version holds ``value`` (base64), ``expires`` (ms since 1970, 0 for never), ``unique`` (the mark of its write), and
``removed``: since when it is being removed, else 0. This module knows nothing about connections or clocks.
"""

import base64
import re
from typing import Any, NamedTuple

from acme_storage.checks import MAX_VALUE

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]|(?<![^/])\.|\.(?=[./]|\Z)|(?<=\.)\.")
_CODE = re.compile(r"=([0-9A-F]{2})")


def path_of(key: str) -> str:
    """Return the path of a key or prefix, relative to the store's path."""
    return _UNSAFE.sub(lambda unsafe: unsafe[0] if unsafe[0] == "/" else f"={ord(unsafe[0]):02X}", key)


def text_of(name: str) -> str | None:
    """Return what a name in a listing adds to the key, None if ``path_of`` cannot have made it."""
    text = _CODE.sub(lambda code: chr(int(code[1], 16)), name)
    return text if path_of(text) == name else None


class Record(NamedTuple):
    """``version`` is for comparisons, 0 if there is none. ``value`` None: absent, being removed, or not ours."""

    version: int = 0
    value: bytes | None = None
    expires: int = 0
    unique: str = ""
    removed: int = 0
    foreign: bool = False


def pack(value: bytes, expires: int, unique: str) -> dict[str, Any]:
    """Return the fields of a version that holds a value."""
    return {"value": base64.b64encode(value).decode(), "expires": expires, "unique": unique, "removed": 0}


def pack_removed(now: int, unique: str) -> dict[str, Any]:
    """Return the fields of the version that is written before a key is removed for good."""
    return {"value": None, "expires": 0, "unique": unique, "removed": now}


def unpack(version: int, fields: Any) -> Record:
    """Return the record in Vault's answer."""
    try:
        value, removed = fields["value"], int(fields["removed"])
        data = None if removed else base64.b64decode(value, validate=True)
        if data is not None and len(data) > MAX_VALUE:
            return Record(version, foreign=True)
        return Record(version, data, int(fields["expires"]), str(fields["unique"]), removed)
    except (KeyError, TypeError, ValueError):
        return Record(version, foreign=True)
