"""Idle names: on-demand certificates that are due, and that no client has asked for, are not renewed.

They are served until they expire; the first client that asks has them renewed, or obtained again as a new name. This
module knows what makes a name idle, and where it is listed then; it must not know how usage is noted.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from ...config.config import Config
from ...core.certificate import Certificate
from ...core.events import Events, IdleChanged
from ...core.structured_logging import fields
from ...core.thread_pools import ThreadPools
from ...store.change_feed import ChangeFeed
from ...store.expired_certificates import ExpiredCertificate, ExpiredCertificates
from ...store.renewal_schedule import RenewalSchedule, ScheduledCheck
from ...store.usage_marks import UsageMarks

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class IdleNames:
    """Passes over and gives up certificates for one node. Use it from one event loop."""

    config: Config
    marks: UsageMarks
    schedule: RenewalSchedule
    expired: ExpiredCertificates
    changes: ChangeFeed
    threads: ThreadPools
    events: Events
    node: str
    now: Callable[[], float]

    async def pass_over(self, entry: ScheduledCheck, certificate: Certificate) -> bool:
        """Leave a certificate that is due to its end if no client has asked for it; say so. Raises ``StorageError``.

        One that may have been asked for is renewed: if its mark is missing, belongs to another certificate, or changes
        at this moment.
        """
        if not self.config.lets_idle_expire or self.config.manages(entry.id):
            return False
        if not await self.threads.storage(self._pass_over, entry, certificate):
            return False
        if entry.at < certificate.not_after:  # at its end it is said already
            self._report(certificate)
        return True

    def _pass_over(self, entry: ScheduledCheck, certificate: Certificate) -> bool:
        end = certificate.not_after
        if not self.marks.pass_over(entry.id, certificate.begun, end):
            return False
        if end <= self.now():
            self.give_up(entry, certificate)
            return True
        self.schedule.move(entry, end)
        self.changes.announce(entry.id, self.now())
        return True

    def give_up(self, entry: ScheduledCheck, certificate: Certificate) -> None:
        """List it as expired, for the housekeeper, instead of in the schedule. Blocks."""
        self.expired.add(ExpiredCertificate(entry.id, certificate.not_after))
        self.schedule.forget(entry)

    def forget(self, entry: ScheduledCheck) -> None:
        """Remove the entry of an id without a certificate, and the mark of its last certificate. Blocks."""
        self.schedule.forget(entry)
        self.marks.delete(entry.id)

    def _report(self, certificate: Certificate) -> None:
        since = datetime.fromtimestamp(certificate.begun, UTC)
        logger.info(
            "%s: not renewed: no client has asked for it since %s (node %s)",
            certificate.id,
            f"{since:%Y-%m-%d}",
            self.node,
            extra=fields("certificate_idle", name=certificate.id, node=self.node),
        )
        self.events.publish(IdleChanged(certificate.id, idle=True))
