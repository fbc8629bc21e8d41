"""Failover: order at the first CA that may be asked, and at the next one where the fault is that CA's own.

Each order is counted in the CA's limits, its failure in the backoffs, and both are logged and published. This module
knows the CAs' clients, their limits, the backoffs and the events; it must not know leases, or who asked.
"""

import logging
import time
from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from functools import partial

from acme_storage import StorageError

from ...ca import delivery, known_cas
from ...core.certificate import Certificate
from ...core.errors import (
    AccountUnusable,
    AcmeError,
    BackingOff,
    ChallengeFailed,
    DeliveryRefused,
    IssuanceError,
    OfAnotherTime,
    RecordRefused,
)
from ...core.events import CertificateFailed, CertificateObtained, Events
from ...core.instrumentation import Instrumentation
from ...core.names import ServerName, Subject
from ...core.renewal import describe_duration
from ...core.structured_logging import fields
from ...core.thread_pools import ThreadPools
from ..configured_ca import ConfiguredCa, ca_of
from .backoff_registry import BackoffRegistry
from .clock_check import ClockCheck
from .exhausted_limits import ExhaustedLimits
from .failure_log import FailedAttempt
from .failure_scope import is_of_name
from .staging import RehearsalFailed, rehearse

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Order:
    """What is ordered, and the stored certificate that it follows, if any."""

    subject: Subject
    replacing: Certificate | None
    for_visitor: bool

    def served_until(self, now: float) -> float:
        """Return when the certificate ends that is served meanwhile (Unix seconds); 0 where there is none."""
        served = self.replacing
        return served.not_after if served is not None and served.serves(self.subject, now) else 0.0

    def is_exempt(self, ca: ConfiguredCa) -> bool:
        """Say whether it is free of the limits of ``ca``, as one that replaces a certificate (RFC 9773 section 5)."""
        return self.replacing is not None and ca.issuer.is_replacement(self.replacing)


@dataclass(frozen=True, slots=True)
class Failover:
    """Orders at the CAs of the options, the preferred one first, for one node. Use it from one event loop."""

    cas: tuple[ConfiguredCa, ...]
    threads: ThreadPools
    backoffs: BackoffRegistry
    limits: ExhaustedLimits
    clocks: ClockCheck
    events: Events
    measures: Instrumentation
    node: str
    now: Callable[[], float]
    # The directories of CAs that have delivered intermediates (``Cache.chained``).
    chained: Container[str]

    async def issue(self, subject: Subject, replacing: Certificate | None, *, for_visitor: bool = False) -> Certificate:
        """Have a CA issue a certificate: the first that may be asked now, or the next where the fault is that CA's.

        Raises ``IssuanceError``: the last CA's where each has failed, ``LimitReached`` where it would refuse, which is
        then not asked, ``BackingOff`` where none may be asked. Every failure is counted, so that no visitor makes it
        happen again at once. Raises ``StorageError`` before anything is ordered.
        """
        order = _Order(subject, replacing, for_visitor and replacing is None)
        ca = self._available(subject, self.cas) or self.cas[0]
        while True:
            begun = time.monotonic()
            try:
                certificate = await self._issue_at(ca, order)
            except BackingOff as refusal:  # this CA was not asked, so there is nothing to count
                ca = self._next(ca, subject, refusal)
            except RehearsalFailed as rehearsal:
                ca = await self._failed(ca, order, rehearsal.error, begun, asked=False)
            except IssuanceError as error:
                ca = await self._failed(ca, order, error, begun)
            except RecordRefused as error:
                ca = await self._failed(ca, order, AccountUnusable(str(error)), begun)
            except (AcmeError, StorageError):
                raise
            except Exception as error:  # counted as well, or each visitor would make it happen again
                logger.exception("%s: the order failed by a fault of this addon", subject)
                ca = await self._failed(ca, order, _fault_of_ours(error), begun)
            else:
                self.measures.order(ca.name, time.monotonic() - begun, None)
                return certificate

    async def report_success(
        self, subject: Subject, certificate: Certificate, seconds: float, replacing: Certificate | None
    ) -> None:
        """Count, log and publish that ``certificate`` is stored, from an order of ``seconds``. Raises nothing."""
        ca = ca_of(certificate, self.cas) or self.cas[0]
        if await self.backoffs.record_success(subject, ca.directory) and len(self.cas) > 1:
            logger.info("%s issues again (node %s)", ca.name, self.node, extra=fields("ca_well", ca=ca.name))
        if not _Order(subject, replacing, for_visitor=False).is_exempt(ca):
            await self._count(ca, ca.budgets.count_certificate, subject.names)
        renewal = replacing is not None
        logger.info(
            "%s: certificate by %s (%s) in %.2f s%s, valid for %s (node %s)",
            subject,
            certificate.issuer_name,
            ca.name,
            seconds,
            ", a renewal" if renewal else "",
            describe_duration(certificate.not_after - self.now()),
            self.node,
            extra=fields(
                "certificate_obtained",
                name=subject.id,
                node=self.node,
                ca=ca.name,
                seconds=round(seconds, 3),
                renewal=renewal,
            ),
        )
        self.events.publish(
            CertificateObtained(subject, certificate, ca.name, seconds, renewal=renewal, node=self.node)
        )

    async def _issue_at(self, ca: ConfiguredCa, order: _Order) -> Certificate:
        """Order at one CA. Raises ``BackingOff`` where it is not asked, ``RehearsalFailed``, ``IssuanceError``."""
        subject = order.subject
        await ca.issuer.ready(subject)  # a CA that is down, or has no such certificates, takes nothing off its limits
        ordered_at = await self.clocks.require(ca, order.replacing)
        await rehearse(ca, subject, self.backoffs)
        await self._take_from_limits(ca, order)
        if (refusal := self.backoffs.active_backoff_at(subject, ca.directory)) is not None:
            # Another order has found it down meanwhile.
            raise self.backoffs.active_backoff(subject) or refusal
        certificate = await ca.issuer.obtain(subject, order.replacing)
        self.clocks.note(ca, certificate, ordered_at)
        await self._check_delivery(ca, order, certificate)
        return replace(certificate, obtained=self.now())

    async def _take_from_limits(self, ca: ConfiguredCa, order: _Order) -> None:
        """Count the order in the limits of ``ca``. Raises ``LimitReached`` where one is used up: ``ca`` would refuse.

        What a visitor meets is remembered: the next new name fails in the ``OrderGate``, before it costs anything.
        """
        if not ca.budgets.has_limits:
            return
        subject = order.subject
        take_order = partial(ca.budgets.take_order, for_visitor=order.for_visitor)
        exceeded = await self.threads.storage(
            ca.budgets.check_validations if order.is_exempt(ca) else take_order, subject.names
        )
        if exceeded is None:
            return
        if order.for_visitor and self.limits.remember(ca.directory, exceeded):
            self.limits.log(ca.directory, ca.name, exceeded, subject)
        else:
            attempt = self._attempt(ca, 0.0, self._following(ca, subject))
            self.backoffs.defer(subject, f"{exceeded} are used up at {ca.name}", exceeded.until, attempt)
        raise exceeded.refusal(subject, ca.name, self.now())

    async def _check_delivery(self, ca: ConfiguredCa, order: _Order, certificate: Certificate) -> None:
        """Raise ``DeliveryRefused`` for what cannot be served: uncounted, each visitor would order it again."""
        replacing = order.replacing
        expected = delivery.Expected(
            order.subject,
            ca.name,
            replacing if order.served_until(self.now()) else None,
            known_cas.additions(ca.directory, order.subject.names),
            chained=ca.directory in self.chained or known_cas.is_public(ca.directory),
            ca_bundle="" if certificate.chain else ca.issuer.ca_bundle,
        )
        await self.threads.issuer(delivery.check, certificate, expected, self.now())

    async def _failed(
        self, ca: ConfiguredCa, order: _Order, error: IssuanceError, begun: float, *, asked: bool = True
    ) -> ConfiguredCa:
        """Count a failure, and return the CA to try next. Where there is none, publish the failure, and raise it.

        ``asked`` says that the CA itself has seen the order.
        """
        subject, seconds = order.subject, time.monotonic() - begun
        self.measures.order(ca.name, seconds, error)
        if asked:
            await self._count_failure(ca, order, error)
        following = None if is_of_name(error) else self._following(ca, subject)
        attempt = self._attempt(ca, seconds, following, order)
        backoff = await self.backoffs.record(subject, error, attempt)
        if following is not None:
            return following
        problem = error.problem.type if error.problem else ""
        self.events.publish(
            CertificateFailed(
                subject, ca.name, problem, str(error), backoff.failures, backoff.until, node=self.node, seconds=seconds
            )
        )
        raise error

    async def _count_failure(self, ca: ConfiguredCa, order: _Order, error: IssuanceError) -> None:
        """Count in the limits of ``ca`` what it counts: each failed validation, and what it issued in vain."""
        if isinstance(error, ChallengeFailed):
            for name in _failed_names(error, order.subject):
                await self._count(ca, ca.budgets.count_failed_validation, name)
        if isinstance(error, DeliveryRefused | OfAnotherTime) and not order.is_exempt(ca):
            await self._count(ca, ca.budgets.count_certificate, order.subject.names)

    def _attempt(
        self, ca: ConfiguredCa, seconds: float, following: ConfiguredCa | None, failed: _Order | None = None
    ) -> FailedAttempt:
        return FailedAttempt(
            ca.name,
            ca.directory,
            seconds,
            self.node,
            following=following.name if following else "",
            served_until=failed.served_until(self.now()) if failed else 0.0,
            new=failed is not None and failed.replacing is None and not failed.subject.managed,
        )

    def _next(self, ca: ConfiguredCa, subject: Subject, refusal: BackingOff) -> ConfiguredCa:
        """Return the CA to try instead of ``ca``. Raises ``refusal`` where there is none."""
        following = self._following(ca, subject)
        if following is None:
            raise refusal
        return following

    def _following(self, ca: ConfiguredCa, subject: Subject) -> ConfiguredCa | None:
        return self._available(subject, self.cas[self.cas.index(ca) + 1 :])

    def _available(self, subject: Subject, cas: tuple[ConfiguredCa, ...]) -> ConfiguredCa | None:
        """Return the preferred one of ``cas`` that may be asked now."""
        return next((ca for ca in cas if self.backoffs.is_available(subject, ca.directory)), None)

    async def _count[T](self, ca: ConfiguredCa, count: Callable[[T], None], what: T) -> None:
        if not ca.budgets.has_limits:
            return
        try:
            await self.threads.storage(count, what)
        except StorageError as error:  # the CA counts too, and its count decides
            logger.warning("a limit of %s is not counted: %s", ca.name, error)


def _failed_names(error: ChallengeFailed, subject: Subject) -> list[ServerName]:
    """Return which names of an order could not be validated: all, unless the CA says which; never another one."""
    told = {name.removeprefix("*.") for name in (error.problem.identifiers if error.problem else ())}
    return [name for name in subject.names if name.removeprefix("*.") in told] or list(subject.names)


def _fault_of_ours(error: Exception) -> IssuanceError:
    return IssuanceError(f"{type(error).__name__} in the addon; the log has more")
