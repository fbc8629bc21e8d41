"""Rotation: every record that lasts is sealed anew, by the newest key, while proxies go on using the same storage.

This module knows pages of keys and ``swap``; it must not know what a record means, nor who is told.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from acme_storage import Storage, StorageCorrupt

from ..core.errors import CertificateError, RecordRefused
from .encryption import RecordCipher
from .keys import account_prefix, certificate_prefix, compromised_prefix

_PAGE = 200


class RotationOutcome(Enum):
    RESEALED = "re-sealed"
    CURRENT = "already sealed by the newest key"
    UNREADABLE = "not readable"
    NOTHING = "without a key to seal it by, or removed meanwhile"


@dataclass(frozen=True, slots=True)
class Step:
    """What came of one record; ``why`` says it of one that is not readable."""

    key: str
    outcome: RotationOutcome
    why: str = ""


def rotate(storage: Storage, sealing: RecordCipher) -> Iterator[Step]:
    """Seal every certificate and account by the newest key, those in clear too, and yield each; blocks.

    It vouches for what lies there in clear. Not so for a certificate to be revoked: that may be a copy of one in use.
    A record that somebody writes meanwhile is looked at again, so nobody's write is lost; what cannot be opened is left
    as it is. Ended at any moment, it can begin anew. Raises ``StorageError``.
    """
    for prefix in (account_prefix(), certificate_prefix(), compromised_prefix()):
        after = ""
        while keys := storage.keys(prefix, after=after, limit=_PAGE):
            for key in keys:
                yield _step(storage, sealing, key)
            after = keys[-1]


def _step(storage: Storage, sealing: RecordCipher, key: str) -> Step:
    try:
        return Step(key, _reseal(storage, sealing, key))
    except (StorageCorrupt, CertificateError, RecordRefused) as error:
        return Step(key, RotationOutcome.UNREADABLE, str(error))


def _reseal(storage: Storage, sealing: RecordCipher, key: str) -> RotationOutcome:
    while (record := storage.get(key)) is not None:
        if sealing.is_current(key, record):
            return RotationOutcome.CURRENT
        resealed = sealing.seal(key, sealing.open(key, record))
        if resealed == record:
            return RotationOutcome.NOTHING
        if storage.swap(key, record, resealed):
            return RotationOutcome.RESEALED
    return RotationOutcome.NOTHING
