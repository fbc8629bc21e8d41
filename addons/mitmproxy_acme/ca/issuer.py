"""Issuer: from names to a certificate, in seven requests.

This module knows the order of things (RFC 8555 section 7.1.6) and when to look again; it must not know who wants a
certificate, where it is kept, or whether it is allowed. It is the async half of this room: each request runs in a
thread, each wait is ``asyncio.sleep``.
"""

import asyncio
import logging
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
from ..core.proof import ACCOUNT_TYPES
from ..core.renewal import ASK_AGAIN_DEFAULT, RenewalInfo
from ..core.revocation import COMPROMISED, REASONS
from ..core.structured_logging import fields
from ..core.text import one_line
from ..core.thread_pools import ThreadPools
from . import chains, delivery, key_generation, known_cas, problems, solver
from .account_session import AccountSession, AccountStore
from .authorization import Authorizer
from .capabilities import require_profile
from .client import Client
from .known_cas import CaInfo
from .network import BRIEF, PATIENT
from .polling import Polled, watch
from .revoke_with_key import revoke_by_key

logger = logging.getLogger(__name__)

_ORDER_TIMEOUT = 180.0
# Of which the CA has this part from when it was asked to validate, however long it took to show the proofs.
_PART_OF_CA = 1 / 3
# A last look, which has a timeout of its own, may end so much later.
_LAST_LOOK = 40.0


class IssuerStore(AccountStore, solver.ChallengeStore, Protocol):
    """What an issuer needs kept. Every method blocks."""

    def account_uri(self, directory: str) -> str | None:
        """Return the URL of the account that is kept; None where there is none that can be read."""
        ...


def issuers_of(
    config: Config, shelf: IssuerStore, threads: ThreadPools, *, patience: float = _ORDER_TIMEOUT
) -> "tuple[Issuer, ...]":
    """Return the CAs of ``acme_ca``, the preferred one first; the last has nobody behind it.

    ``patience`` is for how many seconds an order may take.

    Raises ``ConfigError`` for a CA or an account key that cannot be used, for a CA that comes twice, and for a managed
    certificate that none of them issues. Does no I/O.
    """
    found = known_cas.resolve_all(config.issuers)
    if config.orders:
        known_cas.require_issuable(config, found)
    return tuple(
        Issuer(
            *(config, entry, authority, shelf, threads),
            backed=entry is not config.issuers[-1],
            staging=_staging_of(config, entry, shelf, threads),
            patience=patience,
        )
        for entry, authority in zip(config.issuers, found, strict=True)
    )


def _staging_of(config: Config, entry: CaSettings, shelf: IssuerStore, threads: ThreadPools) -> "Issuer | None":
    """Return where orders to a CA are rehearsed; nowhere where a proof would be for our account at the CA alone."""
    found = known_cas.staging_of(entry)
    if found is None or not ACCOUNT_TYPES.isdisjoint(config.challenges):
        return None
    return Issuer(config, *found, shelf, threads, backed=True)


class Issuer:
    """One CA, with one account there. Use it from one event loop; every method raises ``IssuanceError``."""

    def __init__(
        self,
        config: Config,
        entry: CaSettings,
        authority: CaInfo,
        shelf: IssuerStore,
        threads: ThreadPools,
        *,
        backed: bool,
        staging: "Issuer | None" = None,
        patience: float = _ORDER_TIMEOUT,
    ) -> None:
        """``backed`` says that another CA is asked where this one is silent: it gets little time to answer then.

        ``staging`` is where its orders can be rehearsed, ``patience`` the seconds that an order may take.
        Raises ``ConfigError`` for an account key that cannot be used. Does no I/O.
        """
        self._config = config
        self._entry = entry
        self._capabilities = authority.capabilities
        self._shelf = shelf
        self._threads = threads
        publisher = solver.Solver(config, shelf, threads)
        self._authorizing = Authorizer(entry.ca, config.challenges, threads, publisher)
        self.directory, self.limits = authority.directory, authority.limits
        self.staging = staging
        self._patience = patience
        self._timeout = BRIEF if backed else PATIENT
        self.account = AccountSession(config, entry, shelf, threads, authority, self._timeout)

    @property
    def name(self) -> str:
        """What messages call the CA: as the operator wrote it."""
        return self._entry.ca

    @property
    def ca_bundle(self) -> str:
        """The PEM file whose roots are trusted for the CA's own HTTPS, a path; empty where the system's are."""
        return self._entry.ca_bundle

    def is_replacement(self, replacing: Certificate) -> bool:
        """Say whether an order can tell this CA that it replaces a certificate (RFC 9773 section 5)."""
        return replacing.ca == self.directory and replacing.renewal_id is not None

    async def ready(self, subject: Subject) -> None:
        """Be connected to the CA, with an account there: once for all orders.

        Raises ``NotOffered`` or ``SettingsRefused`` for what the CA does not issue: before it is asked anything, or of
        a profile that its directory does not list before anything is ordered.
        """
        order = known_cas.order_for(self._config, self._entry, self._capabilities, subject)
        self._capabilities.require(order)
        require_profile(order, (await self.account.ready()).profiles)

    async def obtain(self, subject: Subject, replacing: Certificate | None = None) -> Certificate:
        """Order a certificate with a new key and return it; ``replacing`` is the one it follows, if any."""
        replaces = replacing.renewal_id if replacing is not None and self.is_replacement(replacing) else None
        return await self.account.call_with_account(lambda client: self._order(client, subject, replaces))

    async def rehearse(self, subject: Subject) -> None:
        """Order a certificate and throw it away, and the validations with it: the next rehearsal validates anew."""
        await self.account.call_with_account(lambda client: self._order(client, subject, None, rehearsed=True))

    async def revoke(self, certificate: Certificate, reason: str) -> None:
        """Have its CA revoke a certificate (RFC 8555 section 7.6); one that is revoked already is no error.

        As the account; with the certificate's own key where that is not the account that ordered it, or where another
        CA did, which is asked then. A key that is compromised says so itself: that proves it, and the CA bars the key
        from every certificate (Let's Encrypt documents so). ``reason`` is a key of ``REASONS``.
        """
        if reason != COMPROMISED and await self._ordered(certificate):
            try:
                await self.account.call_with_account(
                    lambda client: self._threads.issuer(client.revoke_certificate, certificate, REASONS[reason])
                )
                return
            except (SettingsRefused, NameRefused) as error:
                logger.info(
                    "%s: not revoked as our account, now with its own key: %s",
                    *(certificate.id, error),
                    extra=fields("revoking_by_key", name=certificate.id, ca=self.name, reason=str(error)),
                )
        await self._threads.issuer(
            revoke_by_key, certificate, REASONS[reason], self._entry, self.directory, self._timeout
        )

    async def _ordered(self, certificate: Certificate) -> bool:
        """Say whether our account may have: where there is none yet, it is not made for this."""
        if certificate.ca != self.directory:
            return False
        return await self._threads.storage(self._shelf.account_uri, self.directory) is not None

    async def renewal_info(self, certificate: Certificate, now: float) -> RenewalInfo | None:
        """Ask the CA when to renew (RFC 9773); None where it, or the certificate, has no such thing."""
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
        end = asyncio.get_running_loop().time() + self._patience
        async with asyncio.timeout_at(end + self._patience * _PART_OF_CA + _LAST_LOOK) as limit:
            try:
                return await self._order_until(end, client, subject, replaces, rehearsed)
            except TimeoutError as error:
                if not limit.expired():
                    raise
                # Not while the CA was at it, for the looks end before: showing the proofs took so long.
                raise IssuanceError(f"the order for {subject} at {self.name} took too long") from error

    async def _order_until(
        self, end: float, client: Client, subject: Subject, replaces: str | None, rehearsed: bool
    ) -> Certificate:
        profile = self._capabilities.profile(subject, self._entry.profile)
        order, url = await self._threads.issuer(client.order, subject.names, profile, replaces)
        if order.status == messages.STATUS_INVALID:
            raise problems.from_order(self.name, subject.names, order)
        if order.status == messages.STATUS_PENDING:
            end = await self._authorizing.authorize(client, order, subject.names, end, self._patience * _PART_OF_CA)
        order, key = await self._finalize(client, order, url, subject, end)
        if order.certificate is None:
            raise IssuerUnavailable(f"{self.name} says that the order for {subject} is valid, and gives no certificate")
        if rehearsed:
            for authorization in order.authorizations:
                await self._threads.issuer(client.deactivate_authorization_at, authorization)
        try:
            chain = await chains.choose(
                lambda url: self._threads.issuer(client.download, url),
                *(order.certificate, self._entry.preferred_chain, self.name),
            )
            return delivery.read(subject, self.directory, chain, key)
        except CertificateError as error:
            raise DeliveryRefused(f"{self.name} delivered what cannot be served: {error}") from error

    async def _finalize(
        self,
        client: Client,
        order: messages.Order,
        url: str,
        subject: Subject,
        end: float,
    ) -> tuple[messages.Order, PrivateKey]:
        """Return the order once the CA has issued, and the new private key that the certificate is for."""

        async def look() -> Polled[messages.Order]:
            return await self._threads.issuer(client.order_at, url)

        key, request, (finalized, wait) = await self._threads.issuer(_request_certificate, client, order, subject)
        if finalized is None:  # the CA is still making up its mind: not ready, so look until it is, and say it again
            await watch(look, lambda o: o.status != messages.STATUS_PENDING, end, wait)
            finalized, wait = await self._threads.issuer(client.finalize, order, request)
        if finalized is None or finalized.status != messages.STATUS_VALID:
            finalized = await watch(look, lambda o: o.status in _DECIDED, end, wait)
        if finalized.status not in _DECIDED:
            names = one_line(", ".join(subject.names))
            raise Unfinished(f"{self.name} did not come to an end with the order for {names} in time")
        if finalized.status != messages.STATUS_VALID:
            raise problems.from_order(self.name, subject.names, finalized)
        return finalized, key


def _request_certificate(
    client: Client, order: messages.Order, subject: Subject
) -> tuple[PrivateKey, x509.CertificateSigningRequest, Polled[messages.Order | None]]:
    """Make a key and a CSR, and send it; in one turn of a thread, for each turn costs the event loop time."""
    key = key_generation.new_certificate_key(subject.key_type)
    request = key_generation.certificate_request(key, subject.names)
    return key, request, client.finalize(order, request)


_DECIDED = (messages.STATUS_VALID, messages.STATUS_INVALID)
