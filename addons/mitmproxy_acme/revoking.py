"""Revoking: a certificate that nobody shall trust any more, and what is served in its place.

This module knows what is done in which order; it must not know how a certificate is ordered, or how a CA is asked.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from acme_storage import StorageError

from .cas import Ca, ca_of
from .certificate import Certificate
from .config import Config
from .errors import AcmeError, IssuanceError, NameRefused, NotFound, Sealed, SettingsRefused
from .keeping.store import Store
from .names import ServerName, Subject
from .revocation import COMPROMISED, Revoked
from .threads import Threads


@dataclass(frozen=True, slots=True)
class Revoking:
    """Revocations by one node. Use it from one event loop.

    ``renew`` orders a certificate anew, with a new key, and stores it; ``delete`` forgets what is stored.
    """

    config: Config
    cas: tuple[Ca, ...]
    store: Store
    threads: Threads
    renew: Callable[[Subject], Awaitable[object]]
    delete: Callable[[ServerName, str], Awaitable[None]]

    async def revoke(self, id: ServerName, reason: str) -> Revoked:
        """Have the CA revoke what is stored for ``id``, and have it served no more. See ``Manager.revoke``."""
        certificate = (await self.threads.storage(self.store.slot, id)).certificate
        if certificate is None:
            raise NotFound(f"no certificate is stored for {id}")
        if reason == COMPROMISED:
            return await self._replace_and_revoke(certificate)
        await self._ask(certificate, reason)
        await self.delete(id, reason)
        return Revoked(reason)

    async def _replace_and_revoke(self, stored: Certificate) -> Revoked:
        """Revoke a certificate whose key is stolen: replaced first, for its name is to be served on.

        The old one is kept aside until it is revoked: where its CA is down, who says it again means that one.
        """
        aside = await self._aside(stored.id)
        if aside is not None and not aside.has_key_of(stored):
            await self._revoke_stolen(aside)
            return Revoked(COMPROMISED, replaced=True)
        with contextlib.suppress(StorageError):  # a disk that is full keeps no revocation from being made
            await self.threads.storage(self.store.keep_compromised, stored)
        lacking = await self._lacking(stored)
        try:
            await self._revoke_stolen(stored)
        except IssuanceError as error:
            if lacking:
                raise
            again = "" if isinstance(error, SettingsRefused | NameRefused) else " yet, so ask again"
            raise IssuanceError(
                f"{stored.id} has another certificate, with a new key, but the old one is not revoked{again}: {error}",
                problem=error.problem,
                retry_after=error.retry_after,
            ) from error
        return await self._end_service(stored, lacking)

    async def _aside(self, id: ServerName) -> Certificate | None:
        try:
            return await self.threads.storage(self.store.compromised, id)
        except Sealed:
            return None

    async def _revoke_stolen(self, stolen: Certificate) -> None:
        """Have it revoked, and kept aside no more: nor is one that its CA refuses to revoke, now or ever."""
        try:
            await self._ask(stolen, COMPROMISED)
        except (SettingsRefused, NameRefused):
            await self._forget_aside(stolen.id)
            raise
        await self._forget_aside(stolen.id)

    async def _forget_aside(self, id: ServerName) -> None:
        with contextlib.suppress(StorageError):  # it ends by itself
            await self.threads.storage(self.store.forget_compromised, id)

    async def _lacking(self, stolen: Certificate) -> str:
        """Have a certificate with a new key stored in its place; return why there is none, where there is none.

        It is waited for as long as a handshake is held; an order that takes longer goes on.
        """
        subject, patience = self.config.subject(stolen.id), self.config.handshake_wait
        if subject is None:
            return "the options let the name have no certificate any more"
        try:
            async with asyncio.timeout(patience):
                await self.renew(subject)
        except TimeoutError:
            return f"it did not come within {patience:.0f} s"
        except (AcmeError, StorageError) as error:
            return str(error)
        return ""

    async def _end_service(self, stolen: Certificate, lacking: str) -> Revoked:
        """Leave what is stored, unless it has the stolen key; a replacement may have come late."""
        stored = (await self.threads.storage(self.store.slot, stolen.id)).certificate
        if stored is not None and not stored.has_key_of(stolen):
            return Revoked(COMPROMISED, replaced=True)
        await self.delete(stolen.id, COMPROMISED)
        return Revoked(COMPROMISED, lacking=lacking)

    async def _ask(self, certificate: Certificate, reason: str) -> None:
        ca = ca_of(certificate, self.cas) or self.cas[0]  # whose issuer asks the certificate's own
        await ca.issuer.revoke(certificate, reason)
