"""Revoking: a certificate that nobody shall trust any more, and what is served in its place.

This module knows what is done in which order; it must not know how a certificate is ordered, or how a CA is asked.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from acme_storage import StorageError

from ..config.config import Config
from ..core.certificate import Certificate
from ..core.errors import AcmeError, BackingOff, IssuanceError, NameRefused, NotFound, RecordRefused, SettingsRefused
from ..core.names import ServerName, Subject
from ..core.renewal import describe_duration
from ..core.revocation import COMPROMISED, Revoked
from ..core.structured_logging import fields
from ..core.thread_pools import ThreadPools
from ..store.keys import revocation_scope
from ..store.lease import Lease
from ..store.store import Store
from .backoff_registry import BackoffRegistry
from .configured_ca import ConfiguredCa, ca_of
from .lease_holder import held

logger = logging.getLogger(__name__)

# After so many attempts (half an hour, as ``acme_fail_backoff`` is by default) no replacement is waited for any more:
# the CA that issued the certificate may be well, and take no orders.
_OFTEN = 5


@dataclass(frozen=True, slots=True)
class Replacing:
    """What a revocation does to what is stored: orders a certificate anew, with a new key, and stores it (``renew``);
    forgets one that is revoked (``delete``); tells that one is revoked in whose place another is stored (``told``).
    """

    renew: Callable[[Subject], Awaitable[object]]
    delete: Callable[[ServerName, str], Awaitable[None]]
    told: Callable[[ServerName, str], None]


@dataclass(frozen=True, slots=True)
class Revoker:
    """Revocations by one node. Use it from one event loop."""

    config: Config
    cas: tuple[ConfiguredCa, ...]
    store: Store
    threads: ThreadPools
    failures: BackoffRegistry
    replacing: Replacing
    node: str
    now: Callable[[], float]
    draw: Callable[[], float]

    async def revoke(self, id: ServerName, reason: str) -> Revoked:
        """Have the CA revoke what is stored for ``id``, and have it served no more. See ``Manager.revoke``."""
        certificate = await self._stored(id)
        if certificate is None:
            raise NotFound(f"no certificate is stored for {id}")
        if reason == COMPROMISED:
            async with self._turn(id):  # whoever else is at it: what is revoked twice is revoked
                return await self._say_stolen(certificate)
        await self._ask(certificate, reason)
        await self.replacing.delete(id, reason)
        return Revoked(reason)

    async def finish(self, id: ServerName) -> Revoked | None:
        """Do again what ``revoke`` had to leave undone for a stolen key, unless somebody is at it now.

        Return what came of it, None where nothing is to be done now, or any more: it is put off, or the certificate
        has expired. Raises ``IssuanceError`` with the next attempt put off, ``StorageError``.
        """
        async with self._turn(id) as alone:
            stolen = await self._aside(id) if alone else None
            put_off = await self.threads.storage(self.store.backoff, revocation_scope(id))
            if stolen is None or (put_off is not None and put_off.until > self.now()):
                return None
            if stolen.not_after <= self.now():
                await self._forget_aside(id)
                self._log(logging.WARNING, "revocation_given_up", id, "it has expired before its CA could revoke it")
                return None
            stored = await self._stored(id)
            if stored is not None and stored.has_same_key_as(stolen) and (put_off is None or put_off.failures < _OFTEN):
                await self._require_ca(id)
            return await self._end(stolen, stored)

    async def _say_stolen(self, stored: Certificate) -> Revoked:
        """Revoke a certificate whose key is stolen: replaced first, for its name is to be served on.

        The old one is kept aside until it is revoked: where its CA is down, who says it again means that one.
        """
        aside = await self._aside(stored.id)
        if aside is not None and not aside.has_same_key_as(stored):
            return await self._end(aside, stored)
        with contextlib.suppress(StorageError):  # a disk that is full keeps no revocation from being made
            await self.threads.storage(self.store.save_compromised, stored, self.now())
        return await self._end(stored, stored)

    async def _end(self, stolen: Certificate, stored: Certificate | None) -> Revoked:
        """Replace it where it is what is stored, have it revoked, and have it served no more."""
        lacking = await self._lacking(stolen) if stored is not None and stored.has_same_key_as(stolen) else ""
        await self._revoke_stolen(stolen, replaced=not lacking)
        return await self._end_service(stolen, lacking)

    @contextlib.asynccontextmanager
    async def _turn(self, id: ServerName) -> AsyncIterator[bool]:
        """Have the other nodes leave the stolen key of ``id`` to this one, and say whether they do."""
        try:
            lease = await self.threads.storage(Lease.acquire, self.store.storage, revocation_scope(id), self.node)
        except StorageError:
            lease = None
        if lease is None:
            yield False
            return
        async with held(lease, self.threads):
            yield True

    async def _require_ca(self, id: ServerName) -> None:
        """Raise ``BackingOff`` while no CA may be asked to replace it: nobody waits for an answer, and a certificate
        that can be had a minute later is better than none. A failure of the name itself puts nothing off.
        """
        subject = self.config.subject(id)
        if subject is None:
            return
        await self.failures.pardon(subject)
        try:
            await self.failures.check(subject)
        except BackingOff as error:
            await self._put_off(id, error, error.until - self.now())
            raise

    async def _stored(self, id: ServerName) -> Certificate | None:
        return (await self.threads.storage(self.store.slot, id)).certificate

    async def _aside(self, id: ServerName) -> Certificate | None:
        try:
            return await self.threads.storage(self.store.compromised, id)
        except RecordRefused:
            return None

    async def _revoke_stolen(self, stolen: Certificate, *, replaced: bool) -> None:
        """Have it revoked, and kept aside no more: nor is one that its CA refuses to revoke, now or ever.

        Raises ``IssuanceError`` that says what is left undone, and whether it is tried again.
        """
        try:
            await self._ask(stolen, COMPROMISED)
        except IssuanceError as error:
            then = await self._left_undone(stolen.id, error)
            done = "has another certificate, with a new key, but the old one is not revoked"
            said = f"{stolen.id} {done if replaced else 'is neither replaced nor revoked'}{then}: {error}"
            raise IssuanceError(said, problem=error.problem, retry_after=error.retry_after) from error
        await self._forget_aside(stolen.id)

    async def _left_undone(self, id: ServerName, error: IssuanceError) -> str:
        """Put it off, or give it up where the CA refuses; return what a person is told of that."""
        if isinstance(error, SettingsRefused | NameRefused):
            await self._forget_aside(id)
            self._log(logging.WARNING, "revocation_given_up", id, f"its CA refuses to revoke it: {error}")
            return ""
        if await self._put_off(id, error, error.retry_after or 0.0):
            return " yet, which is tried again by itself"
        return " yet, so ask again"

    async def _put_off(self, id: ServerName, error: IssuanceError, at_least: float) -> bool:
        """Say until when it is left alone, once; False where no node would try again, as of another proxy's name."""
        if self.config.subject(id) is None:
            return False
        scope, waits = revocation_scope(id), self.config.fail_backoff.for_ca()
        try:
            if await self._aside(id) is None:
                return False
            previous = await self.threads.storage(self.store.backoff, scope)
            backoff = waits.next_backoff(previous, str(error), now=self.now(), draw=self.draw(), at_least=at_least)
            await self.threads.storage(self.store.save_backoff, scope, backoff)
        except StorageError:
            return False
        if previous is None:
            wait = describe_duration(backoff.until - self.now())
            said = f"it is not revoked yet, which is tried again by itself, first in {wait}: {error}"
            self._log(logging.WARNING, "revocation_put_off", id, said)
        return True

    async def _forget_aside(self, id: ServerName) -> None:
        with contextlib.suppress(StorageError):  # both end by themselves
            await self.threads.storage(self.store.delete_compromised, id)
            await self.threads.storage(self.store.delete_backoff, revocation_scope(id))

    def _log(self, level: int, event: str, id: ServerName, said: str) -> None:
        logger.log(
            level,
            "%s: the certificate whose key is stolen: %s (node %s)",
            *(id, said, self.node),
            extra=fields(event, name=id, node=self.node, reason=said),
        )

    async def _lacking(self, stolen: Certificate) -> str:
        """Have a certificate with a new key stored in its place; return why there is none, where there is none.

        It is waited for as long as a handshake is held; an order that takes longer goes on.
        """
        subject, patience = self.config.subject(stolen.id), self.config.handshake_wait
        if subject is None:
            return "the options let the name have no certificate any more"
        try:
            async with asyncio.timeout(patience):
                await self.replacing.renew(subject)
        except TimeoutError:
            return f"it did not come within {patience:.0f} s"
        except (AcmeError, StorageError) as error:
            return str(error)
        return ""

    async def _end_service(self, stolen: Certificate, lacking: str) -> Revoked:
        """Leave what is stored, unless it has the stolen key; a replacement may have come late."""
        stored = await self._stored(stolen.id)
        if stored is not None and not stored.has_same_key_as(stolen):
            self.replacing.told(stolen.id, COMPROMISED)
            return Revoked(COMPROMISED, replaced=True)
        await self.replacing.delete(stolen.id, COMPROMISED)
        return Revoked(COMPROMISED, lacking=lacking)

    async def _ask(self, certificate: Certificate, reason: str) -> None:
        ca = ca_of(certificate, self.cas) or self.cas[0]  # whose issuer asks the certificate's own
        await ca.issuer.revoke(certificate, reason)
