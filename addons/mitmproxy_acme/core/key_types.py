"""Key types, their two kinds, and the ids of a second certificate for the same name.

    www.example.com        the certificate with a key of the first entry of ``acme_key_type``
    www.example.com+rsa    the certificate of the second entry, if any; or +ecdsa

This module knows words; it must not know keys or certificates.
"""

from collections.abc import Sequence

from .errors import ConfigError

KEY_TYPES = ("ecdsa-p256", "ecdsa-p384", "rsa-2048", "rsa-3072", "rsa-4096")
KINDS = ("ecdsa", "rsa")
_MARK = "+"  # names never contain it, storage keys may, and ~ and @ have other uses there (``store.keys``)


def kind_of(key_type: str) -> str:
    """Return the kind that clients support or not: ``ecdsa`` or ``rsa``."""
    return key_type.partition("-")[0]


def mark_of(key_type: str) -> str:
    """Return the suffix of an id whose key is of the second kind."""
    return _MARK + kind_of(key_type)


def split(id: str) -> tuple[str, str]:
    """Split the id of a certificate into its name and the mark of its kind, which may be empty."""
    name, mark, kind = id.partition(_MARK)
    return name, mark + kind


def parse_key_types(entries: Sequence[str]) -> tuple[str, ...]:
    """Read ``acme_key_type``: one type, or two of different kinds, the preferred first. Raises ``ConfigError``."""
    for entry in entries:
        if entry not in KEY_TYPES:
            raise ConfigError(f"acme_key_type: {entry!r} is not known; write one of {', '.join(KEY_TYPES)}")
    if not entries or len(entries) > len(KINDS) or len(set(map(kind_of, entries))) != len(entries):
        given = ", ".join(entries) or "nothing"
        raise ConfigError(
            f"acme_key_type: it has {given}; write one type, or two of different kinds: ecdsa-p256 and rsa-2048"
        )
    return tuple(entries)
