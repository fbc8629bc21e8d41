"""Issuance: what the CA is asked to do for a certificate, within its limits; counted, logged and told.

Of several CAs the first that may be asked is, and where the fault is its own, the next. This module knows the CAs'
clients, their limits, failures and events; it must not know leases, or who asked.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial

from acme_storage import StorageError

from ..ca import delivery, known_cas
from ..core.certificate import Certificate
from ..core.errors import (
    AccountUnusable,
    AcmeError,
    ChallengeFailed,
    DeliveryRefused,
    IssuanceError,
    LimitReached,
    RecordRefused,
)
from ..core.events import CertificateFailed, CertificateObtained, Events
from ..core.instrumentation import Instrumentation
from ..core.names import ServerName, Subject
from ..core.renewal import describe_duration
from ..core.structured_logging import fields
from ..core.thread_pools import ThreadPools
from ..store.rate_limiter import LimitExceeded
from .backoff_registry import BackoffRegistry
from .configured_ca import ConfiguredCa, ca_of
from .exhausted_limits import ExhaustedLimits
from .failure_log import FailedAttempt
from .failure_scope import is_of_name
from .staging import rehearse

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Failover:
    """Orders at the CAs of the options, the preferred one first, for one node. Use it from one event loop."""

    cas: tuple[ConfiguredCa, ...]
    threads: ThreadPools
    failures: BackoffRegistry
    events: Events
    measures: Instrumentation
    node: str
    now: Callable[[], float]
    edges: ExhaustedLimits
    # The directories of CAs that have delivered intermediates, as far as this process has seen.
    chained: set[str] = field(default_factory=set)

    def refusal_for_visitor(self, subject: Subject) -> LimitReached | None:
        """Return why no CA would be asked for a visitor's name that has no certificate: no storage, no wait."""
        cas = [ca for ca in self.cas if self.failures.may_ask(subject, ca.directory)]
        found = [(ca, edge) for ca in cas if (edge := self.edges.find(ca.directory, subject)) is not None]
        if not found or len(found) < len(cas):
            return None
        ca, edge = min(found, key=lambda known: known[1].until)
        self.edges.say(ca.directory, ca.name, edge, subject)
        return edge.refusal(subject, ca.name, self.now())

    async def issue(self, subject: Subject, replacing: Certificate | None, *, for_visitor: bool = False) -> Certificate:
        """Have a CA issue a certificate: the first that may be asked now, or the next where the fault is that CA's.

        Raises ``IssuanceError``: the last CA's where each has failed, ``LimitReached`` where it would refuse, which is
        then not asked, ``BackingOff`` where none may be asked. Whatever fails is counted, so that no visitor makes it
        fail again at once. And ``StorageError`` before anything is ordered.
        """
        found: Certificate | ConfiguredCa = self._first(subject)
        while isinstance(found, ConfiguredCa):
            found = await self._try(found, subject, replacing, for_visitor=for_visitor and replacing is None)
        return found

    async def tell(
        self, subject: Subject, certificate: Certificate, seconds: float, replacing: Certificate | None
    ) -> None:
        """Say that ``certificate`` came of an order that took ``seconds``, once it is stored. Raises nothing."""
        ca = ca_of(certificate, self.cas) or self.cas[0]
        if await self.failures.forget(subject, ca.directory) and len(self.cas) > 1:
            logger.info("%s issues again (node %s)", ca.name, self.node, extra=fields("ca_well", ca=ca.name))
        if not _is_exempt(ca, replacing):
            await self._count(ca, ca.budgets.count_certificate, subject.names)
        renewal = replacing is not None
        left = describe_duration(certificate.not_after - self.now())
        followed = ", a renewal" if renewal else ""
        logger.info(
            "%s: certificate by %s (%s) in %.2f s%s, valid for %s (node %s)",
            *(subject, certificate.issuer_name, ca.name, seconds, followed, left, self.node),
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

    def _first(self, subject: Subject) -> ConfiguredCa:
        """Return the preferred one of those that may be asked now. Raises ``BackingOff`` where none may."""
        if (refusal := self.failures.known(subject)) is not None:
            raise refusal
        return self._next(subject, self.cas) or self.cas[0]

    def _next(self, subject: Subject, cas: tuple[ConfiguredCa, ...]) -> ConfiguredCa | None:
        return next((ca for ca in cas if self.failures.may_ask(subject, ca.directory)), None)

    async def _try(
        self, ca: ConfiguredCa, subject: Subject, replacing: Certificate | None, *, for_visitor: bool
    ) -> Certificate | ConfiguredCa:
        """Return the certificate, or the CA that is to be asked in the place of this one. Raises where neither is."""
        begun = time.monotonic()
        connected = await self._asked(ca, subject, replacing, begun, ca.issuer.ready(subject))
        if connected is not None:  # a CA that is down, or has no such certificates, takes nothing off its limits
            return connected
        unfit = await self._rehearsed(ca, subject, replacing, begun)
        if unfit is not None:
            return unfit
        take_order = partial(ca.budgets.take_order, for_visitor=for_visitor)
        count = ca.budgets.check_validations if _is_exempt(ca, replacing) else take_order
        exhausted = await self.threads.storage(count, subject.names) if ca.budgets.has_limits else None
        if exhausted is not None:
            return self._left_alone(ca, subject, exhausted, for_visitor=for_visitor)
        if not self.failures.may_ask(subject, ca.directory):  # another order has found it down meanwhile
            return self._first(subject)
        found = await self._asked(ca, subject, replacing, begun, self._obtained(ca, subject, replacing))
        if not isinstance(found, ConfiguredCa):
            self.measures.order(ca.name, time.monotonic() - begun, None)
        return found

    async def _obtained(self, ca: ConfiguredCa, subject: Subject, replacing: Certificate | None) -> Certificate:
        """Order at one CA. What comes and cannot be served is a failure, or each visitor would order it again."""
        certificate = await ca.issuer.obtain(subject, replacing)
        served = replacing if replacing is not None and replacing.serves(subject, self.now()) else None
        expected = delivery.Expected(
            subject,
            ca.name,
            served,
            known_cas.additions(ca.directory, subject.names),
            chained=ca.directory in self.chained or known_cas.is_public(ca.directory),
            ca_bundle="" if certificate.chain else ca.issuer.ca_bundle,
        )
        await self.threads.issuer(delivery.check, certificate, expected, self.now())
        self.note_chain(certificate)
        return replace(certificate, obtained=self.now())

    def note_chain(self, certificate: Certificate) -> None:
        """Remember of its CA that it delivers intermediates, where it did: it is to do so for other names too."""
        if certificate.chain and (ca := ca_of(certificate, self.cas)) is not None:
            self.chained.add(ca.directory)

    async def _rehearsed(
        self, ca: ConfiguredCa, subject: Subject, replacing: Certificate | None, begun: float
    ) -> ConfiguredCa | None:
        """Return who is asked instead where a rehearsal fails, which takes nothing off the CA's limits; else None."""
        try:
            await rehearse(ca, subject, self.failures)
        except IssuanceError as error:
            return await self._failed(ca, subject, replacing, error, time.monotonic() - begun, asked=False)
        return None

    async def _asked[T](
        self, ca: ConfiguredCa, subject: Subject, replacing: Certificate | None, begun: float, request: Awaitable[T]
    ) -> T | ConfiguredCa:
        """Return what a CA answers; where it fails, the CA that is asked instead. Raises where there is none."""
        try:
            return await request
        except IssuanceError as error:
            return await self._failed(ca, subject, replacing, error, time.monotonic() - begun)
        except RecordRefused as error:
            unusable = AccountUnusable(str(error))
            return await self._failed(ca, subject, replacing, unusable, time.monotonic() - begun)
        except (AcmeError, StorageError):
            raise
        except Exception as error:  # whatever it is: what is not counted, each visitor would make fail again
            logger.exception("%s: the order failed by a fault of this addon", subject)
            failure = IssuanceError(f"{type(error).__name__} in the addon; the log has more")
            return await self._failed(ca, subject, replacing, failure, time.monotonic() - begun)

    def _left_alone(
        self, ca: ConfiguredCa, subject: Subject, exhausted: LimitExceeded, *, for_visitor: bool
    ) -> ConfiguredCa:
        """Ask a CA nothing that it would refuse, and return who is asked instead. Raises where nobody is."""
        refusal = exhausted.refusal(subject, ca.name, self.now())
        following = self._following(ca, subject, refusal)
        if for_visitor and self.edges.remember(ca.directory, exhausted):  # the next name meets it before it costs this
            self.edges.say(ca.directory, ca.name, exhausted, subject)
        else:
            reason, attempt = f"{exhausted} are used up at {ca.name}", self._attempt(ca, 0.0, following)
            self.failures.leave(subject, reason, exhausted.until, attempt)
        if following is None:
            raise refusal
        return following

    async def _failed(
        self,
        ca: ConfiguredCa,
        subject: Subject,
        replacing: Certificate | None,
        error: IssuanceError,
        seconds: float,
        *,
        asked: bool = True,
    ) -> ConfiguredCa:
        """Count the failure, and return who is asked instead. Where nobody is, it is told, and raised.

        ``asked`` says that the CA itself has seen the order.
        """
        self.measures.order(ca.name, seconds, error)
        if asked and isinstance(error, ChallengeFailed):
            for name in _failed_names(error, subject):
                await self._count(ca, ca.budgets.count_failed_validation, name)
        if isinstance(error, DeliveryRefused) and not _is_exempt(ca, replacing):  # the CA has issued it all the same
            await self._count(ca, ca.budgets.count_certificate, subject.names)
        following = self._following(ca, subject, error)
        served_until, new = self._served_until(subject, replacing), replacing is None and not subject.managed
        attempt = self._attempt(ca, seconds, following, served_until, new=new)
        backoff = await self.failures.record(subject, error, attempt)
        if following is not None:
            return following
        problem = error.problem.type if error.problem else ""
        self.events.publish(
            CertificateFailed(subject, ca.name, problem, str(error), backoff.failures, backoff.until, node=self.node)
        )
        raise error

    def _following(self, ca: ConfiguredCa, subject: Subject, error: IssuanceError) -> ConfiguredCa | None:
        """Return who is asked when ``ca`` fails with ``error``; nobody, where it would fail there too."""
        return None if is_of_name(error) else self._next(subject, self.cas[self.cas.index(ca) + 1 :])

    def _attempt(
        self,
        ca: ConfiguredCa,
        seconds: float,
        following: ConfiguredCa | None,
        served_until: float = 0.0,
        *,
        new: bool = False,
    ) -> FailedAttempt:
        then = following.name if following else ""
        return FailedAttempt(ca.name, ca.directory, seconds, self.node, then, served_until, new)

    def _served_until(self, subject: Subject, stored: Certificate | None) -> float:
        """Return when what visitors are served meanwhile ends; 0 where that is nothing."""
        return stored.not_after if stored is not None and stored.serves(subject, self.now()) else 0.0

    async def _count[T](self, ca: ConfiguredCa, spend: Callable[[T], None], what: T) -> None:
        if not ca.budgets.has_limits:
            return
        try:
            await self.threads.storage(spend, what)
        except StorageError as error:  # the CA counts too, and its word goes over ours
            logger.warning("a limit of %s is not counted: %s", ca.name, error)


def _failed_names(error: ChallengeFailed, subject: Subject) -> list[ServerName]:
    """Return which names of an order could not be validated: all, unless the CA says which; never another one."""
    told = {name.removeprefix("*.") for name in (error.problem.identifiers if error.problem else ())}
    return [name for name in subject.names if name.removeprefix("*.") in told] or list(subject.names)


def _is_exempt(ca: ConfiguredCa, replacing: Certificate | None) -> bool:
    return replacing is not None and ca.issuer.is_replacement(replacing)
