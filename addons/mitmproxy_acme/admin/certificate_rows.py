"""Rows: what there is to say of one stored certificate.

This module knows certificates and their times; it must not know where they are stored, or who reads of them.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from cryptography.hazmat.primitives import hashes

from ..core.certificate import Certificate
from ..core.names import ServerName


class State(StrEnum):
    """What a certificate is, the worst that holds."""

    VALID = "valid"
    DUE = "due"  # the time to renew it has come
    EXPIRING = "expiring"  # and less than a third of its life is left
    EXPIRED = "expired"
    UNREADABLE = "unreadable"  # a broken record, or one that no key opens


class SortKey(StrEnum):
    """What comes first in a list."""

    HOST = "host"
    EXPIRY = "expires_at"  # the soonest; what cannot be read comes last


@dataclass(frozen=True, slots=True)
class CertificateDetails:
    """What there is to say of a stored certificate; times are Unix seconds, ``renew_at`` is when it is due."""

    names: tuple[str, ...]
    ca: str
    issuer: str
    not_before: float
    not_after: float
    renew_at: float
    serial: int
    sha1: bytes
    sha256: bytes
    key_type: str

    @classmethod
    def of(cls, certificate: Certificate, renew_at: float) -> Self:
        return cls(
            names=tuple(sorted(certificate.names)),
            ca=certificate.ca,
            issuer=certificate.issuer_name,
            not_before=certificate.not_before,
            not_after=certificate.not_after,
            renew_at=renew_at,
            serial=certificate.leaf.serial_number,
            sha1=certificate.leaf.fingerprint(hashes.SHA1()),  # noqa: S303  # what Kong shows, to tell certificates apart
            sha256=certificate.fingerprint,
            key_type=certificate.key_type,
        )


@dataclass(frozen=True, slots=True)
class CertificateRow:
    """One stored record: its facts, or why there are none."""

    id: ServerName
    facts: CertificateDetails | None
    trouble: str = ""

    def sort_value(self, order: SortKey) -> str:
        """Return where it is in a list: what is to come behind it has a greater one, as text."""
        if order is SortKey.HOST:
            return self.id
        return f"{self.facts.not_after:012.0f} {self.id}" if self.facts is not None else f"~ {self.id}"

    def state(self, now: float) -> State:
        if self.facts is None:
            return State.UNREADABLE
        if now >= self.facts.not_after:
            return State.EXPIRED
        if now < self.facts.renew_at:
            return State.VALID
        left, life = self.facts.not_after - now, self.facts.not_after - self.facts.not_before
        return State.EXPIRING if left < life / 3 else State.DUE

    def is_valid(self, now: float) -> bool:
        """Say whether a client accepts it now."""
        return self.facts is not None and self.facts.not_before <= now < self.facts.not_after

    def matches(self, search: str) -> bool:
        """Say whether ``search`` is a part of any of its names."""
        return search in self.id or (self.facts is not None and any(search in name for name in self.facts.names))
