"""One stored certificate as a row of a list, with its details and state.

This module knows certificates and their times; it must not know where they are stored, or how they are shown.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from cryptography.hazmat.primitives import hashes

from ..core.certificate import Certificate
from ..core.names import ServerName


class State(StrEnum):
    """The state of a certificate: the worst that applies."""

    VALID = "valid"
    DUE = "due"  # due for renewal
    EXPIRING = "expiring"  # due, with less than a third of its life left
    IDLE = "idle"  # due or expired, and not renewed because no client asked for it
    EXPIRED = "expired"
    UNREADABLE = "unreadable"  # a broken record, or one that no key decrypts


class SortKey(StrEnum):
    """The order of a list."""

    HOST = "host"
    EXPIRY = "expires_at"  # soonest first, unreadable ones last


@dataclass(frozen=True, slots=True)
class CertificateDetails:
    """The details of a stored certificate; times are in Unix seconds.

    ``renew_at`` is when it is due; ``idle_since`` is since when no client has asked for it, if it is not renewed for
    that reason.
    """

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
    idle_since: float | None = None

    @classmethod
    def of(cls, certificate: Certificate, renew_at: float, *, idle: bool = False) -> Self:
        return cls(
            names=tuple(sorted(certificate.names)),
            ca=certificate.ca,
            issuer=certificate.issuer_name,
            not_before=certificate.not_before,
            not_after=certificate.not_after,
            renew_at=renew_at,
            serial=certificate.leaf.serial_number,
            sha1=certificate.leaf.fingerprint(hashes.SHA1()),  # noqa: S303  # as an identifier, as in Kong
            sha256=certificate.fingerprint,
            key_type=certificate.key_type,
            idle_since=certificate.begun if idle else None,
        )


@dataclass(frozen=True, slots=True)
class CertificateRow:
    """One stored record: its details, or the ``trouble`` with reading it."""

    id: ServerName
    details: CertificateDetails | None
    trouble: str = ""

    def sort_value(self, order: SortKey) -> str:
        """Return its position in a list, as text: later rows have greater values."""
        if order is SortKey.HOST:
            return self.id
        return f"{self.details.not_after:012.0f} {self.id}" if self.details is not None else f"~ {self.id}"

    def state(self, now: float) -> State:
        if self.details is None:
            return State.UNREADABLE
        if self.details.idle_since is not None:
            return State.IDLE
        if now >= self.details.not_after:
            return State.EXPIRED
        if now < self.details.renew_at:
            return State.VALID
        left, life = self.details.not_after - now, self.details.not_after - self.details.not_before
        return State.EXPIRING if left < life / 3 else State.DUE

    def is_valid(self, now: float) -> bool:
        """Return whether clients accept it now."""
        return self.details is not None and self.details.not_before <= now < self.details.not_after

    def matches(self, search: str) -> bool:
        """Return whether any of its names contains ``search``."""
        return search in self.id or (self.details is not None and any(search in name for name in self.details.names))
