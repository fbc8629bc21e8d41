"""Issuance: what the CA is asked to do for a certificate, within its limits; counted, logged and told.

This module knows the CA's client, its limits, failures and events; it must not know leases, or who asked.
"""

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from acme_storage import StorageError

from .certificate import Certificate
from .errors import ChallengeFailed, IssuanceError
from .events import CertificateFailed, CertificateObtained, Events
from .failures import Failures
from .issuing.issuer import Issuer
from .keeping.budgets import Budgets
from .logs import fields
from .measures import Measures
from .names import ServerName, Subject
from .renewal import describe_duration
from .threads import Threads

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Issuance:
    """Orders at one CA, for one node. Use it from one event loop."""

    issuer: Issuer
    budgets: Budgets
    threads: Threads
    failures: Failures
    events: Events
    measures: Measures
    node: str
    now: Callable[[], float]

    async def issue(self, subject: Subject, replacing: Certificate | None) -> Certificate:
        """Have the CA issue a certificate.

        Raises ``IssuanceError``: ``LimitReached`` where the CA would refuse, which is then not asked. Whatever fails
        is counted, so that no visitor makes it fail again at once. And ``StorageError`` before anything is ordered.
        """
        begun = time.monotonic()
        async with self._failures_counted(subject, begun):
            await self.issuer.ready()  # first, for a CA that is down takes nothing off its limits
        if not self._is_exempt(replacing):
            await self._spend_order(subject)
        if (refusal := self.failures.known(subject)) is not None:  # another order found it meanwhile
            raise refusal
        async with self._failures_counted(subject, begun):
            certificate = await self.issuer.obtain(subject, replacing)
        self.measures.order(self.issuer.name, time.monotonic() - begun, None)
        return certificate

    @contextlib.asynccontextmanager
    async def _failures_counted(self, subject: Subject, begun: float) -> AsyncIterator[None]:
        """Count and tell what the block raises; a fault of ours is one too, or every visitor would repeat it."""
        try:
            yield
        except IssuanceError as error:
            await self._failed(subject, error, time.monotonic() - begun)
            raise
        except (TypeError, ValueError, LookupError, AttributeError, AssertionError) as error:
            logger.exception("%s: the order failed by a fault of this addon", subject)
            failure = IssuanceError(f"{type(error).__name__} in the addon; the log has more")
            await self._failed(subject, failure, time.monotonic() - begun)
            raise failure from error

    async def tell(
        self, subject: Subject, certificate: Certificate, seconds: float, replacing: Certificate | None
    ) -> None:
        """Say that ``certificate`` came of an order that took ``seconds``, once it is stored. Raises nothing."""
        if not self._is_exempt(replacing):
            await self._count(self.budgets.spend_certificate, subject.names)
        renewal = replacing is not None
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

    def _is_exempt(self, replacing: Certificate | None) -> bool:
        return replacing is not None and self.issuer.is_replacement(replacing)

    async def _spend_order(self, subject: Subject) -> None:
        exhausted = await self.threads.storage(self.budgets.spend_order, subject.names)
        if exhausted is not None:
            self.failures.leave(subject, f"{exhausted} are used up at {self.issuer.name}", exhausted.until)
            raise exhausted.refusal(subject, self.issuer.name, self.now())

    async def _count[T](self, spend: Callable[[T], None], what: T) -> None:
        try:
            await self.threads.storage(spend, what)
        except StorageError as error:  # the CA counts too, and its word goes over ours
            logger.warning("a limit of %s is not counted: %s", self.issuer.name, error)

    async def _failed(self, subject: Subject, error: IssuanceError, seconds: float) -> None:
        self.measures.order(self.issuer.name, seconds, error)
        if isinstance(error, ChallengeFailed):
            for name in (error.problem and error.problem.identifiers) or subject.names:
                await self._count(self.budgets.spend_failure, ServerName(name))
        backoff = await self.failures.record(subject, error, ca=self.issuer.name, seconds=seconds, node=self.node)
        problem = error.problem.type if error.problem else ""
        self.events.publish(
            CertificateFailed(
                subject, self.issuer.name, problem, str(error), backoff.failures, backoff.until, node=self.node
            )
        )
