"""Repair: mend the trouble that inspection found, where that loses nothing that a proxy can use.

This module knows what is safe to write while proxies use the storage: each record is removed by ``swap``, against what
was read. It must not know who asked for it. Records that no key opens, those of later releases, foreign keys, accounts
and stolen keys are never touched.
"""

from collections.abc import Callable
from dataclasses import dataclass

from acme_storage import Storage, StorageCorrupt

from ..core.certificate import Certificate
from ..core.names import ServerName
from ..core.renewal import DAY, RenewBefore, renew_at
from .expired_certificates import ExpiredCertificate, ExpiredCertificates
from .inspection import Examined, Trouble, is_any_stored
from .keys import ACCOUNTS_PREFIX, CERTIFICATES_PREFIX, COMPROMISED_PREFIX
from .renewal_schedule import RenewalSchedule, ScheduledCheck

_KEPT = (ACCOUNTS_PREFIX, COMPROMISED_PREFIX)


def can_mend(found: Examined) -> bool:
    """Say whether ``Repair`` does anything about it."""
    match found.trouble:
        case Trouble.ORPHANED | Trouble.UNLISTED:
            return True
        case Trouble.BROKEN:
            # The storage cannot fence the removal of a record that it cannot read. A certificate's may be replaced at
            # this moment; the others are written again when they are needed.
            fenced = found.record is not None or not found.key.startswith(CERTIFICATES_PREFIX)
            return fenced and not found.key.startswith(_KEPT)
    return False


@dataclass(frozen=True, slots=True)
class Repair:
    """Mends the records of one storage at ``now`` (Unix seconds). Blocks, and raises ``StorageError``.

    ``manages`` says whether an id is that of a managed certificate.
    """

    storage: Storage
    renew_before: RenewBefore
    manages: Callable[[ServerName], bool]
    now: float

    def mend(self, found: Examined) -> str:
        """Mend it, and return what was done in a word or two; empty if nothing was, as it has changed meanwhile."""
        if not can_mend(found):
            return ""
        if found.certificate is not None:
            return self._list(found.certificate)
        if found.trouble is Trouble.ORPHANED and is_any_stored(self.storage, found.ids):
            return ""
        return "removed" if self._remove(found) else ""

    def _list(self, certificate: Certificate) -> str:
        if self.now - certificate.not_after > DAY and not self.manages(certificate.id):
            ExpiredCertificates(self.storage).add(ExpiredCertificate(certificate.id, certificate.not_after))
            return "listed as expired"
        check_at = max(renew_at(certificate, self.renew_before, None, self.now), self.now)
        RenewalSchedule(self.storage).add(ScheduledCheck(certificate.id, check_at))
        return "scheduled"

    def _remove(self, found: Examined) -> bool:
        if found.record is not None:
            return self.storage.swap(found.key, found.record, None)
        try:
            self.storage.get(found.key)
        except StorageCorrupt:
            self.storage.delete(found.key)
            return True
        return False
