"""Issuance: what the CA is asked to do for a certificate, counted, logged and told.

This module knows the CA's client, failures and events; it must not know leases, storage or who asked.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from .certificate import Certificate
from .errors import IssuanceError
from .events import CertificateFailed, CertificateObtained, Events
from .failures import Failures
from .issuing.issuer import Issuer
from .logs import fields
from .measures import Measures
from .names import Subject
from .renewal import describe_duration

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Issuance:
    """Orders at one CA, for one node. Use it from one event loop."""

    issuer: Issuer
    failures: Failures
    events: Events
    measures: Measures
    node: str
    now: Callable[[], float]

    async def issue(self, subject: Subject, replacing: Certificate | None) -> Certificate:
        """Have the CA issue a certificate, and say so.

        Raises ``IssuanceError``. Whatever fails is counted, so that no visitor makes it fail again at once.
        """
        begun = time.monotonic()
        try:
            certificate = await self.issuer.obtain(subject, replacing)
        except IssuanceError as error:
            await self._failed(subject, error, time.monotonic() - begun)
            raise
        except (TypeError, ValueError, LookupError, AttributeError, AssertionError) as error:
            logger.exception("%s: the order failed by a fault of this addon", subject)
            failure = IssuanceError(f"{type(error).__name__} in the addon; the log has more")
            await self._failed(subject, failure, time.monotonic() - begun)
            raise failure from error
        self.measures.order(self.issuer.name, time.monotonic() - begun, None)
        return certificate

    def tell(self, subject: Subject, certificate: Certificate, seconds: float, *, renewal: bool) -> None:
        """Say that ``certificate`` came of an order that took ``seconds``, once it is stored."""
        left = describe_duration(certificate.not_after - self.now())
        followed = ", a renewal" if renewal else ""
        logger.info(
            "%s: certificate by %s (%s) in %.2f s%s, valid for %s (node %s)",
            *(subject, certificate.issuer_name, self.issuer.name, seconds, followed, left, self.node),
            extra=fields(
                "certificate_obtained",
                name=subject.id,
                node=self.node,
                ca=self.issuer.name,
                seconds=round(seconds, 3),
                renewal=renewal,
            ),
        )
        self.events.publish(
            CertificateObtained(subject, certificate, self.issuer.name, seconds, renewal=renewal, node=self.node)
        )

    async def _failed(self, subject: Subject, error: IssuanceError, seconds: float) -> None:
        self.measures.order(self.issuer.name, seconds, error)
        backoff = await self.failures.record(subject, error, ca=self.issuer.name, seconds=seconds, node=self.node)
        problem = error.problem.type if error.problem else ""
        self.events.publish(
            CertificateFailed(
                subject, self.issuer.name, problem, str(error), backoff.failures, backoff.until, node=self.node
            )
        )
