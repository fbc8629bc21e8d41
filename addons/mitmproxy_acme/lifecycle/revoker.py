"""Revoker: have a certificate revoked, and replaced first where its key is compromised.

This module knows the order of the steps; it must not know how a certificate is ordered, or how a CA is asked.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from acme_storage import StorageError

from ..config.config import Config
from ..core.backoff import Backoff
from ..core.certificate import Certificate
from ..core.errors import AcmeError, IssuanceError, NameRefused, NotFound, RecordRefused, SettingsRefused
from ..core.names import ServerName, Subject
from ..core.renewal import describe_duration
from ..core.revocation import COMPROMISED, Revoked
from ..core.structured_logging import fields
from ..core.thread_pools import ThreadPools
from ..store.keys import revocation_scope
from ..store.lease import Lease
from ..store.store import Store
from .cautious_clock import CautiousClock
from .certificate_remover import CertificateRemover
from .configured_ca import ConfiguredCa, ca_of
from .lease_holder import hold_lease
from .ordering.backoff_registry import BackoffRegistry
from .ordering.obtainer import Obtainer
from .ordering.order_request import OrderRequest, Requester
from .ordering.waits_of_other_clocks import WaitsOfOtherClocks

logger = logging.getLogger(__name__)

# After so many attempts (half an hour, as ``acme_fail_backoff`` is by default) the revocation waits for no replacement:
# the CA that issued the certificate may revoke, and take no orders.
_MOST_WAITS = 5


@dataclass(frozen=True, slots=True)
class Revoker:
    """Revocations by one node. Use it from one event loop."""

    config: Config
    cas: tuple[ConfiguredCa, ...]
    store: Store
    threads: ThreadPools
    backoffs: BackoffRegistry
    obtainer: Obtainer
    remover: CertificateRemover
    node: str
    now: Callable[[], float]
    clock: CautiousClock
    draw: Callable[[], float]
    waits: WaitsOfOtherClocks

    async def revoke(self, id: ServerName, reason: str) -> Revoked:
        """Have the CA revoke what is stored for ``id``, then delete it. See ``Manager.revoke``."""
        certificate = await self._stored(id)
        if certificate is None:
            raise NotFound(f"no certificate is stored for {id}")
        if reason == COMPROMISED:
            async with self._try_lease(id):  # another node may hold it: to revoke twice does no harm
                return await self._revoke_compromised(certificate)
        await self._ask(certificate, reason)
        stored = await self._stored(id)  # a renewal may have come while the CA was asked
        if stored is not None and stored.fingerprint != certificate.fingerprint:
            self.remover.report(id, reason, replaced=True)
            return Revoked(reason, replaced=True)
        await self.remover.delete(id, reason)
        return Revoked(reason)

    async def finish(self, id: ServerName) -> Revoked | None:
        """Try again what ``revoke`` could not finish for a compromised key, unless another node is doing so now.

        Return what was done; None where nothing is left to do, or not yet: it is backing off, or the certificate has
        expired. Raises ``IssuanceError`` with the next attempt put off, ``StorageError``.
        """
        async with self._try_lease(id) as leased:
            stolen = await self._kept(id) if leased else None
            put_off = await self.put_off(id)
            if stolen is None or (put_off is not None and put_off.until > self.now()):
                return None
            if stolen.not_after <= self.now():
                await self._give_up_expired(stolen)
                return None
            stored = await self._stored(id)
            if (
                stored is not None
                and stored.has_same_key_as(stolen)
                and (put_off is None or put_off.failures < _MOST_WAITS)
            ):
                await self._require_ca(id)
            return await self._end(stolen, stored)

    async def put_off(self, id: ServerName) -> Backoff | None:
        """Return what an unfinished revocation waits for, by our clock. Raises ``StorageError``."""
        scope = revocation_scope(id)
        backoff = await self.threads.storage(self.store.backoff, scope)
        return self.waits.correct(scope, backoff) if backoff is not None else None

    async def _give_up_expired(self, stolen: Certificate) -> None:
        """Keep it no longer, unless only our clock says that it has expired."""
        moment = await self.clock.moment()
        if moment is not None and stolen.not_after <= moment:
            await self._delete_kept(stolen.id)
            said = "it expired before its CA could revoke it"
            self._log(logging.WARNING, "revocation_given_up", stolen.id, said)

    async def _revoke_compromised(self, stored: Certificate) -> Revoked:
        """Revoke a certificate whose key is compromised. It is replaced first, so that its name is served on.

        The old one is kept apart until it is revoked: where its CA is down, a second call means that one.
        """
        kept = await self._kept(stored.id)
        if kept is not None and not kept.has_same_key_as(stored):
            return await self._end(kept, stored)
        with contextlib.suppress(StorageError):  # a full disk does not stop the revocation
            await self.threads.storage(self.store.save_compromised, stored)
        return await self._end(stored, stored)

    async def _end(self, stolen: Certificate, stored: Certificate | None) -> Revoked:
        """Replace it where it is what is stored, have it revoked, and stop serving it."""
        lacking = await self._lacking(stolen) if stored is not None and stored.has_same_key_as(stolen) else ""
        await self._revoke_stolen(stolen, replaced=not lacking)
        return await self._end_service(stolen, lacking)

    @contextlib.asynccontextmanager
    async def _try_lease(self, id: ServerName) -> AsyncIterator[bool]:
        """Yield whether this node holds the lease of the revocation, so that the other nodes leave it to this one."""
        try:
            lease = await self.threads.storage(Lease.acquire, self.store.storage, revocation_scope(id), self.node)
        except StorageError:
            lease = None
        if lease is None:
            yield False
            return
        async with hold_lease(lease, self.threads):
            yield True

    async def _require_ca(self, id: ServerName) -> None:
        """Raise ``BackingOff`` while no CA may be asked to replace it. A failure of the name itself puts nothing off.

        No caller waits for an answer, and a certificate a minute later is better than none.
        """
        subject = self.config.subject(id)
        if subject is None:
            return
        await self.backoffs.reset(subject)
        await self.backoffs.load(subject)
        if (refusal := self.backoffs.active_backoff(subject)) is not None:
            await self._put_off(id, refusal, refusal.until - self.now())
            raise refusal

    async def _stored(self, id: ServerName) -> Certificate | None:
        return (await self.threads.storage(self.store.slot, id)).certificate

    async def _kept(self, id: ServerName) -> Certificate | None:
        try:
            return await self.threads.storage(self.store.compromised, id)
        except RecordRefused:
            return None

    async def _revoke_stolen(self, stolen: Certificate, *, replaced: bool) -> None:
        """Have it revoked, and keep it no longer; nor is one kept that its CA refuses to revoke.

        Raises ``IssuanceError`` that says what is not done, and whether it is tried again.
        """
        try:
            await self._ask(stolen, COMPROMISED)
        except IssuanceError as error:
            then = await self._after_failure(stolen.id, error)
            done = "has another certificate, with a new key, but the old one is not revoked"
            said = f"{stolen.id} {done if replaced else 'is neither replaced nor revoked'}{then}: {error}"
            raise IssuanceError(said, problem=error.problem, retry_after=error.retry_after) from error
        await self._delete_kept(stolen.id)

    async def _after_failure(self, id: ServerName, error: IssuanceError) -> str:
        """Put it off, or give it up where the CA refuses; return the end of the sentence that says so."""
        if isinstance(error, SettingsRefused | NameRefused):
            await self._delete_kept(id)
            self._log(logging.WARNING, "revocation_given_up", id, f"its CA refuses to revoke it: {error}")
            return ""
        if await self._put_off(id, error, error.retry_after or 0.0):
            return " yet, and it is retried automatically"
        return " yet; try again later"

    async def _put_off(self, id: ServerName, error: IssuanceError, at_least: float) -> bool:
        """Save when it is tried again, and log that once; False where no node will: it is another proxy's name."""
        if self.config.subject(id) is None:
            return False
        scope, waits = revocation_scope(id), self.config.fail_backoff.for_ca()
        try:
            if await self._kept(id) is None:
                return False
            previous = await self.threads.storage(self.store.backoff, scope)
            backoff = waits.next_backoff(previous, str(error), now=self.now(), draw=self.draw(), at_least=at_least)
            await self.threads.storage(self.store.save_backoff, scope, backoff)
        except StorageError:
            return False
        if previous is None:
            wait = describe_duration(backoff.until - self.now())
            said = f"it is not revoked yet; retry in {wait}: {error}"
            self._log(logging.WARNING, "revocation_put_off", id, said)
        return True

    async def _delete_kept(self, id: ServerName) -> None:
        with contextlib.suppress(StorageError):  # both expire
            await self.threads.storage(self.store.delete_compromised, id)
            await self.threads.storage(self.store.delete_backoff, revocation_scope(id))

    def _log(self, level: int, event: str, id: ServerName, said: str) -> None:
        logger.log(
            level,
            "%s: the certificate whose key is compromised: %s (node %s)",
            id,
            said,
            self.node,
            extra=fields(event, name=id, node=self.node, reason=said),
        )

    async def _lacking(self, stolen: Certificate) -> str:
        """Have a certificate with a new key stored in its place; return why there is none, or nothing.

        This waits as long as a handshake is held; an order that takes longer goes on.
        """
        subject, longest = self.config.subject(stolen.id), self.config.handshake_wait
        if subject is None:
            return "the options no longer allow a certificate for the name"
        try:
            async with asyncio.timeout(longest):
                await self._replace(subject)
        except TimeoutError:
            return f"it did not come within {longest:.0f} s"
        except (AcmeError, StorageError) as error:
            return str(error)
        return ""

    async def _replace(self, subject: Subject) -> None:
        """Order a new certificate in the place of the stored one. Backoffs of the name do not count, a CA's do."""
        await self.backoffs.reset(subject)
        stored = await self._stored(subject.id)
        await self.obtainer.obtain(OrderRequest(subject, Requester.OPERATOR, stored))

    async def _end_service(self, stolen: Certificate, lacking: str) -> Revoked:
        """Delete what is stored if it still has the compromised key; a replacement may have come late."""
        stored = await self._stored(stolen.id)
        if stored is not None and not stored.has_same_key_as(stolen):
            self.remover.report(stolen.id, COMPROMISED, replaced=True)
            return Revoked(COMPROMISED, replaced=True)
        await self.remover.delete(stolen.id, COMPROMISED)
        return Revoked(COMPROMISED, lacking=lacking)

    async def _ask(self, certificate: Certificate, reason: str) -> None:
        ca = ca_of(certificate, self.cas) or self.cas[0]  # its issuer asks the CA of the certificate
        await ca.issuer.revoke(certificate, reason)
