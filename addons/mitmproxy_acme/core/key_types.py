"""Types of keys, the two kinds that they are of, and how the second kind's certificates are told from the first's.

    www.example.com        the certificate with a key of the first entry of ``acme_key_type``
    www.example.com+rsa    the one of the second entry, where there is one; or +ecdsa

This module knows words; it must not know keys or certificates.
"""

from collections.abc import Sequence

from .errors import ConfigError

KEY_TYPES = ("ecdsa-p256", "ecdsa-p384", "rsa-2048", "rsa-3072", "rsa-4096")
KINDS = ("ecdsa", "rsa")
_MARK = "+"  # no name has one, and a key of storage may; ~ and @ are taken there (keeping.places)


def kind_of(key_type: str) -> str:
    """Return the kind that a client can use or not: ``ecdsa`` or ``rsa``."""
    return key_type.partition("-")[0]


def mark_of(key_type: str) -> str:
    """Return what stands behind a name where a type is of the second kind."""
    return _MARK + kind_of(key_type)


def split(id: str) -> tuple[str, str]:
    """Return the name in what a certificate is stored under, and the mark of its kind; none is empty."""
    name, mark, kind = id.partition(_MARK)
    return name, mark + kind


def parse_key_types(entries: Sequence[str]) -> tuple[str, ...]:
    """Read ``acme_key_type``: one type, or two of different kinds, the preferred one first. Raises ``ConfigError``."""
    for entry in entries:
        if entry not in KEY_TYPES:
            raise ConfigError(f"acme_key_type: {entry!r} is not known; write one of {', '.join(KEY_TYPES)}")
    if not entries or len(entries) > len(KINDS) or len(set(map(kind_of, entries))) != len(entries):
        given = ", ".join(entries) or "nothing"
        raise ConfigError(
            f"acme_key_type: {given} is given; write one type, or two of different kinds: ecdsa-p256 and rsa-2048"
        )
    return tuple(entries)
