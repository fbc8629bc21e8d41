"""Issuer: from names to a certificate, in seven requests.

This module knows the sequence of requests (RFC 8555 section 7.1.6) and when to poll; it must not know who wants a
certificate, where it is stored, or whether it is allowed. It is the async half of this room: each request runs in a
thread, each wait is ``asyncio.sleep``.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from acme import messages
from cryptography import x509

from ..config.ca_settings import CaSettings
from ..config.config import Config
from ..core.certificate import Certificate, PrivateKey
from ..core.errors import (
    CertificateError,
    DeliveryRefused,
    IssuanceError,
    IssuerUnavailable,
    NameRefused,
    SettingsRefused,
    Unfinished,
)
from ..core.names import Subject
from ..core.renewal import ASK_AGAIN_DEFAULT, RenewalInfo
from ..core.revocation import COMPROMISED, REASONS
from ..core.structured_logging import fields
from ..core.text import one_line
from ..core.thread_pools import ThreadPools
from ..core.token_bucket import TokenBucket
from . import chains, delivery, key_generation, known_cas, problems, solver
from .account_session import AccountSession, AccountStore
from .authorization import Authorizer
from .capabilities import require_profile
from .client import Client
from .http.network import BRIEF, PATIENT
from .known_cas import CaInfo
from .polling import Polled, poll_until
from .revoke_with_key import revoke_by_key

logger = logging.getLogger(__name__)

ORDER_TIMEOUT = 180.0
"""Seconds that an order may take, before the CA has validated the names."""
# The part of it that the CA has from the moment when it was asked to validate, however long the proofs took.
_VALIDATION_PART = 1 / 3
# A last poll, which has a timeout of its own, may end so much later.
_LAST_POLL = 40.0
# Lines at once, and a second after that, which say that an order begins: strangers can begin any number of them.
_BEGUN_LINES = (20, 20 / 60)


class IssuerStore(AccountStore, solver.ChallengeStore, Protocol):
    """What an issuer stores. Every method blocks."""

    def account_uri(self, directory: str) -> str | None:
        """Return the URL of the stored account; None if no account can be read."""
        ...


class Issuer:
    """One CA, with one account there. Use it from one event loop; every method raises ``IssuanceError``."""

    def __init__(
        self,
        config: Config,
        entry: CaSettings,
        ca_info: CaInfo,
        store: IssuerStore,
        threads: ThreadPools,
        *,
        backed: bool,
        staging: "Issuer | None" = None,
        timeout: float = ORDER_TIMEOUT,
    ) -> None:
        """``backed`` says that another CA follows if this one is silent, so this one gets little time to answer.

        ``staging`` is where its orders can be rehearsed, ``timeout`` the seconds that an order may take.
        Raises ``ConfigError`` for an account key that cannot be used. Does no I/O.
        """
        self._config = config
        self._entry = entry
        self._capabilities = ca_info.capabilities
        self._store = store
        self._threads = threads
        self._authorizer = Authorizer(entry.ca, config.challenges, threads, solver.Solver(config, store, threads))
        self.directory, self.limits = ca_info.directory, ca_info.limits
        self.staging = staging
        self._order_timeout = timeout
        self._begun_log = TokenBucket(*_BEGUN_LINES, time.monotonic)
        self._timeout = BRIEF if backed else PATIENT
        self.account = AccountSession(config, entry, store, threads, ca_info, self._timeout)

    @property
    def name(self) -> str:
        """The CA's name in messages: as the operator wrote it."""
        return self._entry.ca

    @property
    def ca_bundle(self) -> str:
        """The path of the PEM file whose roots are trusted for the CA's own HTTPS; empty for the system's roots."""
        return self._entry.ca_bundle

    def is_replacement(self, replacing: Certificate) -> bool:
        """Say whether an order can tell this CA that it replaces a certificate (RFC 9773 section 5)."""
        return replacing.ca == self.directory and replacing.renewal_id is not None

    async def ready(self, subject: Subject) -> None:
        """Connect to the CA and create the account if needed, once for all orders.

        Raises ``NotOffered`` or ``SettingsRefused`` if the CA does not issue this: before it is asked anything, or, for
        a profile that its directory does not list, before anything is ordered.
        """
        order = known_cas.order_for(self._config, self._entry, self._capabilities, subject)
        self._capabilities.require(order)
        require_profile(order, (await self.account.ready()).profiles)

    async def clock_ahead(self, now: Callable[[], float], trusted: float) -> float | None:
        """Return how many seconds our clock ``now`` is ahead of the CA's; None if the CA does not tell the time.

        The CA is asked again where that is more than ``trusted``: this machine may have slept since its last reply.
        """
        client = await self.account.ready()
        ahead = client.net.clock.ahead(now())
        if ahead is not None and abs(ahead) > trusted:
            await self._threads.issuer(client.ask_for_time)
            ahead = client.net.clock.ahead(now())
        return ahead

    async def obtain(self, subject: Subject, replacing: Certificate | None = None) -> Certificate:
        """Order a certificate with a new key and return it; ``replacing`` is the one that it follows, if any."""
        if self._begun_log.take():
            logger.info(
                "%s: ordering a certificate at %s",
                subject,
                self.name,
                extra=fields("order_begun", name=subject.id, ca=self.name),
            )
        replaces = replacing.renewal_id if replacing is not None and self.is_replacement(replacing) else None
        return await self.account.call_with_account(lambda client: self._order(client, subject, replaces))

    async def rehearse(self, subject: Subject) -> None:
        """Order a certificate and discard it with its validations, so that the next rehearsal validates again."""
        await self.account.call_with_account(lambda client: self._order(client, subject, None, rehearsed=True))

    async def revoke(self, certificate: Certificate, reason: str) -> None:
        """Have its CA revoke a certificate (RFC 8555 section 7.6); an earlier revocation is no error.

        This signs as the account, or with the certificate's own key if another account or another CA issued it; that CA
        is asked then. A compromised key always signs itself: that proves the compromise, and the CA bars the key from
        all certificates (as Let's Encrypt documents). ``reason`` is a key of ``REASONS``.
        """
        if reason != COMPROMISED and await self._may_have_ordered(certificate):
            try:
                await self.account.call_with_account(
                    lambda client: self._threads.issuer(client.revoke_certificate, certificate, REASONS[reason])
                )
                return
            except (SettingsRefused, NameRefused) as error:
                logger.info(
                    "%s: our account may not revoke it; trying with its own key: %s",
                    certificate.id,
                    error,
                    extra=fields("revoking_by_key", name=certificate.id, ca=self.name, reason=str(error)),
                )
        await self._threads.issuer(
            revoke_by_key, certificate, REASONS[reason], self._entry, self.directory, self._timeout
        )

    async def _may_have_ordered(self, certificate: Certificate) -> bool:
        """Say whether our account may have ordered it; no account is created for this."""
        if certificate.ca != self.directory:
            return False
        return await self._threads.storage(self._store.account_uri, self.directory) is not None

    async def renewal_info(self, certificate: Certificate, now: float) -> RenewalInfo | None:
        """Ask the CA when to renew (RFC 9773); None if it, or the certificate, does not support that."""
        if certificate.ca != self.directory:
            return None
        window = await self.account.call_with_account(
            lambda client: self._threads.issuer(client.renewal_window, certificate)
        )
        if window is None:
            return None
        start, end, explanation, retry_after = window
        return RenewalInfo.suggest(start, end, retry_after or ASK_AGAIN_DEFAULT, now, explanation)

    async def _order(
        self, client: Client, subject: Subject, replaces: str | None, *, rehearsed: bool = False
    ) -> Certificate:
        end = asyncio.get_running_loop().time() + self._order_timeout
        limit = asyncio.timeout_at(end + self._order_timeout * _VALIDATION_PART + _LAST_POLL)
        try:
            async with limit:
                return await self._order_until(end, client, subject, replaces, rehearsed)
        except TimeoutError as error:
            if not limit.expired():
                raise
            # The CA's part has limits of its own, which end earlier: it was presenting the proofs that took so long.
            raise IssuanceError(f"the order for {subject} at {self.name} took too long") from error

    async def _order_until(
        self, end: float, client: Client, subject: Subject, replaces: str | None, rehearsed: bool
    ) -> Certificate:
        profile = self._capabilities.profile(subject, self._entry.profile)
        order, url = await self._threads.issuer(client.order, subject.names, profile, replaces)
        if order.status == messages.STATUS_INVALID:
            raise problems.from_order(self.name, subject.names, order)
        if order.status == messages.STATUS_PENDING:
            least = self._order_timeout * _VALIDATION_PART
            end = await self._authorizer.authorize(client, order, subject.names, end, least)
            logger.debug("%s: %s has validated every name", subject, self.name)
        order, key = await self._finalize(client, order, url, subject, end)
        if order.certificate is None:
            raise IssuerUnavailable(f"{self.name} says that the order for {subject} is valid, but gives no certificate")
        if rehearsed:
            for authorization in order.authorizations:
                await self._threads.issuer(client.deactivate_authorization_at, authorization)
        try:
            chain = await chains.choose(
                lambda url: self._threads.issuer(client.download, url),
                order.certificate,
                self._entry.preferred_chain,
                self.name,
            )
            return delivery.read(subject, self.directory, chain, key)
        except CertificateError as error:
            raise DeliveryRefused(f"{self.name} delivered a chain that cannot be served: {error}") from error

    async def _finalize(
        self,
        client: Client,
        order: messages.Order,
        url: str,
        subject: Subject,
        end: float,
    ) -> tuple[messages.Order, PrivateKey]:
        """Return the order after the CA has issued, and the certificate's new private key."""

        async def fetch() -> Polled[messages.Order]:
            return await self._threads.issuer(client.order_at, url)

        key, request, (finalized, wait) = await self._threads.issuer(_request_certificate, client, order, subject)
        if finalized is None:  # the CA is not ready yet: poll until it is, then finalize again
            await poll_until(fetch, lambda order: order.status != messages.STATUS_PENDING, end, wait)
            finalized, wait = await self._threads.issuer(client.finalize, order, request)
        if finalized is None or finalized.status != messages.STATUS_VALID:
            finalized = await poll_until(fetch, lambda order: order.status in _DECIDED, end, wait)
        if finalized.status not in _DECIDED:
            names = one_line(", ".join(subject.names))
            raise Unfinished(f"{self.name} did not complete the order for {names} in time")
        if finalized.status != messages.STATUS_VALID:
            raise problems.from_order(self.name, subject.names, finalized)
        return finalized, key


def _request_certificate(
    client: Client, order: messages.Order, subject: Subject
) -> tuple[PrivateKey, x509.CertificateSigningRequest, Polled[messages.Order | None]]:
    """Make a key and a CSR, and send it; all in one thread call, because each call costs the event loop time."""
    key = key_generation.new_certificate_key(subject.key_type)
    request = key_generation.certificate_request(key, subject.names)
    return key, request, client.finalize(order, request)


_DECIDED = (messages.STATUS_VALID, messages.STATUS_INVALID)
