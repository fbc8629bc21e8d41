"""Renewal windows: when the CA suggests to renew a certificate (RFC 9773).

This module knows the CA's suggestion, and where it is kept; it must not know when a certificate is renewed.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from ...core.certificate import Certificate
from ...core.errors import IssuanceError
from ...core.events import Events, RenewalScheduled
from ...core.names import ServerName, Subject
from ...core.renewal import RenewalInfo, RenewBefore
from ...core.structured_logging import fields
from ...core.thread_pools import ThreadPools
from ...store.renewal_schedule import RenewalSchedule
from ..certificate_policy import CertificatePolicy
from ..ordering.backoff_registry import BackoffRegistry

logger = logging.getLogger(__name__)

# Seconds. The window that was told before holds meanwhile, so there is no haste (RFC 9773 section 4.3.3).
_ASK_AFTER_FAILURE = 3_600.0


@dataclass(frozen=True, slots=True)
class RenewalWindows:
    """The windows of one node's certificates. Use it from one event loop."""

    renew_before: RenewBefore
    policy: CertificatePolicy
    backoffs: BackoffRegistry
    schedule: RenewalSchedule
    threads: ThreadPools
    events: Events
    node: str
    now: Callable[[], float]

    async def find(self, subject: Subject, certificate: Certificate) -> RenewalInfo | None:
        """Return the CA's suggestion: the stored one while it is current, else a new one (RFC 9773 section 4.3)."""
        id, renewal_id = subject.id, certificate.renewal_id
        ca = self.policy.ca_of(certificate)
        if not self.renew_before.auto or ca is None or renewal_id is None or self.now() >= certificate.not_after:
            return None
        known = await self.threads.storage(self.schedule.renewal_info, id, renewal_id)
        if known is not None and known.is_current(self.now()):
            return known
        if self.backoffs.is_backing_off(subject, ca.directory):
            return known
        try:
            info = await ca.issuer.renewal_info(certificate, self.now())
        except IssuanceError as error:
            logger.debug("%s: no renewal information: %s", subject, error)
            return replace(known, ask_again=self.now() + _ASK_AFTER_FAILURE) if known is not None else None
        if info is not None:
            await self.threads.storage(self.schedule.save_renewal_info, id, renewal_id, info)
            self.events.publish(RenewalScheduled(id))
            if known is None or known.is_ordinary(self.now()):
                self._explain(id, ca.name, info)
        return info

    def _explain(self, id: ServerName, ca: str, info: RenewalInfo) -> None:
        """Log what is unusual about a new window: that it is over, as before a revocation, or the CA's reason."""
        over, node = info.end <= self.now(), self.node
        if info.is_ordinary(self.now()):
            return
        explained = f"the CA explains its renewal window at {info.explanation_url}" if info.explanation_url else ""
        called_for = "its renewal window is over, so it is replaced at once: its CA may be about to revoke it"
        logger.warning(
            "%s: %s (%s, node %s)",
            id,
            "; ".join(filter(None, (called_for if over else "", explained))),
            ca,
            node,
            extra=fields(
                "replacement_called_for" if over else "renewal_explained",
                name=id,
                node=node,
                ca=ca,
                url=info.explanation_url,
            ),
        )
