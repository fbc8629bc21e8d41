"""Key rotation: seal every lasting record again with the newest key, while proxies use the same storage.

This module knows pages of keys and ``swap``; it must not know what a record means, or who is told.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from acme_storage import Storage, StorageCorrupt

from ..core.errors import CertificateError, RecordRefused
from .encryption import RecordCipher
from .keys import ACCOUNTS_PREFIX, CERTIFICATES_PREFIX, COMPROMISED_PREFIX

_PAGE = 200


class RotationOutcome(Enum):
    RESEALED = "re-sealed"
    CURRENT = "already sealed by the newest key"
    UNREADABLE = "not readable"
    NOTHING = "no key to seal it with, or removed meanwhile"


@dataclass(frozen=True, slots=True)
class Step:
    """The outcome for one record; ``why`` explains it for one that is not readable."""

    key: str
    outcome: RotationOutcome
    why: str = ""


def rotate(storage: Storage, cipher: RecordCipher) -> Iterator[Step]:
    """Seal every certificate and account with the newest key, also those in clear text, and yield each; blocks.

    This vouches for records in clear text, except for compromised certificates, which may be copies of ones in use. If
    another process writes a record meanwhile, it is read again, so no write is lost; records that cannot be opened stay
    unchanged. It can be interrupted and repeated at any time. Raises ``StorageError``.
    """
    for prefix in (ACCOUNTS_PREFIX, CERTIFICATES_PREFIX, COMPROMISED_PREFIX):
        after = ""
        while keys := storage.keys(prefix, after=after, limit=_PAGE):
            for key in keys:
                yield _step(storage, cipher, key)
            after = keys[-1]


def _step(storage: Storage, cipher: RecordCipher, key: str) -> Step:
    try:
        return Step(key, _reseal(storage, cipher, key))
    except (StorageCorrupt, CertificateError, RecordRefused) as error:
        return Step(key, RotationOutcome.UNREADABLE, str(error))


def _reseal(storage: Storage, cipher: RecordCipher, key: str) -> RotationOutcome:
    while (record := storage.get(key)) is not None:
        if cipher.is_current(key, record):
            return RotationOutcome.CURRENT
        resealed = cipher.seal(key, cipher.open(key, record))
        if resealed == record:
            return RotationOutcome.NOTHING
        if storage.swap(key, record, resealed):
            return RotationOutcome.RESEALED
    return RotationOutcome.NOTHING
