"""The warning that a certificate is not renewed although it expires soon: in the log, and as an event.

This module knows the words; it must not know when a renewal is due.
"""

import logging
from dataclasses import dataclass

from ...core.certificate import Certificate
from ...core.events import CertificateExpiring, Events
from ...core.names import Subject
from ...core.renewal import describe_duration
from ...core.structured_logging import fields
from ..certificate_policy import CertificatePolicy

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExpiryWarning:
    """The warnings of one node. Use it from one event loop."""

    policy: CertificatePolicy
    events: Events
    node: str

    def warn(self, subject: Subject, certificate: Certificate, reason: str, left: float) -> None:
        """Tell people that the renewal failed because of ``reason``, with ``left`` seconds to live."""
        ca = (self.policy.ca_of(certificate) or self.policy.cas[0]).name
        logger.warning(
            "%s: not renewed, and the certificate %s: %s (%s, node %s)",
            subject,
            f"expires in {describe_duration(left)}" if left > 0 else "has expired",
            reason,
            ca,
            self.node,
            extra=fields(
                "certificate_expiring", name=subject.id, node=self.node, ca=ca, reason=reason, expires_in=round(left)
            ),
        )
        self.events.publish(CertificateExpiring(subject, certificate, reason, self.node))
