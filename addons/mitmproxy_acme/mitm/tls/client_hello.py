"""Which types of keys a client can use, according to its ClientHello.

This module knows the numbers in a ClientHello (RFC 8446, RFC 5246, RFC 8422); it must not know certificates, or which
one is served. All of it is pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from ...core.key_types import kind_of

_SUPPORTED_GROUPS, _SIGNATURE_ALGORITHMS, _SUPPORTED_VERSIONS = 10, 13, 43  # extensions
_TLS_1_3 = 0x0304
# TLS 1.3 names the curve with the hash (RFC 8446 section 4.2.3): exactly one scheme fits a key.
_ECDSA_SCHEMES = {"ecdsa-p256": 0x0403, "ecdsa-p384": 0x0503}
_PSS_SCHEMES = frozenset((0x0804, 0x0805, 0x0806))
_CURVES = {"ecdsa-p256": 23, "ecdsa-p384": 24}
# Until TLS 1.2 the second byte alone says which kind of key signs (RFC 5246 section 7.4.1.4.1).
_RSA, _ECDSA = 1, 3
_ECDHE_ECDSA_SUITES = frozenset(
    (*range(0xC006, 0xC00B), 0xC023, 0xC024, 0xC02B, 0xC02C, *range(0xC0AC, 0xC0B0), 0xCCA9)
)
_TLS_1_3_SUITES = range(0x1301, 0x1306)
_SIGNALS = frozenset((0x00FF, 0x5600))  # not cipher suites: RFC 5746 and RFC 7507


@dataclass(frozen=True, slots=True)
class ClientCapabilities:
    """What a client offered, as far as it decides about keys. None means that the extension is missing.

    ``suites`` are those of TLS 1.2 and before. ``tls13`` says that TLS 1.3 will be spoken: then only ``schemes`` count.
    """

    schemes: frozenset[int] | None = None
    groups: frozenset[int] | None = None
    suites: frozenset[int] = frozenset()
    tls13: bool = False

    @classmethod
    def read(cls, suites: Sequence[int], extensions: Sequence[tuple[int, bytes]], *, tls13: bool) -> Self:
        """Read a ClientHello: its cipher suites and its extensions; ``tls13`` says whether we speak TLS 1.3."""
        bodies = dict(extensions)
        schemes = _list(bodies.get(_SIGNATURE_ALGORITHMS))
        if tls13 and _TLS_1_3 in _numbers(bodies.get(_SUPPORTED_VERSIONS, b""), behind=1):
            return cls(schemes, tls13=True)
        return cls(schemes, _list(bodies.get(_SUPPORTED_GROUPS)), frozenset(filter(_is_of_tls12, suites)))

    def takes(self, key_type: str) -> bool:
        """Say whether the client can use a certificate with such a key."""
        ecdsa = kind_of(key_type) == "ecdsa"
        if self.tls13:
            wanted = frozenset((_ECDSA_SCHEMES.get(key_type),)) if ecdsa else _PSS_SCHEMES
            return self.schemes is not None and not wanted.isdisjoint(self.schemes)
        return self._takes_ecdsa(key_type) if ecdsa else self._takes_rsa()

    def choose(self, key_types: Sequence[str]) -> tuple[str, ...]:
        """Return the types that the client can use, in their order; if it seems to use none, those with RSA.

        Clients that are too old to say what they can use have RSA.
        """
        usable = tuple(type for type in key_types if self.takes(type))
        return usable or tuple(type for type in key_types if kind_of(type) == "rsa") or tuple(key_types)

    def _takes_ecdsa(self, key_type: str) -> bool:
        if self.groups is not None and _CURVES.get(key_type) not in self.groups:  # RFC 8422 section 5.1
            return False
        return self._signs(_ECDSA) and not self.suites.isdisjoint(_ECDHE_ECDSA_SUITES)

    def _takes_rsa(self) -> bool:
        others = not self.suites or bool(self.suites - _ECDHE_ECDSA_SUITES)
        return others and (self._signs(_RSA) or not _PSS_SCHEMES.isdisjoint(self.schemes or ()))

    def _signs(self, signature: int) -> bool:
        """Say whether this kind of key may sign. Without the extension both may (RFC 5246 section 7.4.1.4.1)."""
        return self.schemes is None or any(scheme < 0x0700 and scheme & 0xFF == signature for scheme in self.schemes)


def _list(body: bytes | None) -> frozenset[int] | None:
    return _numbers(body, behind=2) if body is not None else None


def _numbers(body: bytes, *, behind: int) -> frozenset[int]:
    """Return the 16-bit numbers of a list, behind the ``behind`` bytes of its length."""
    return frozenset(body[at] << 8 | body[at + 1] for at in range(behind, len(body) - 1, 2))


def _is_of_tls12(suite: int) -> bool:
    grease = suite & 0x0F0F == 0x0A0A and suite >> 8 == suite & 0xFF  # RFC 8701
    return suite not in _SIGNALS and suite not in _TLS_1_3_SUITES and not grease
