"""Manager: get, obtain and renew certificates; the one place where these decisions are wired.

This module knows policy, storage and the CA through the rooms below; it must not know mitmproxy, OpenSSL, when a
renewal is looked for, or how an order is made (``obtaining`` does).
"""

import logging
import random
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Sequence

from acme_storage import Storage, StorageError

from .. import __version__
from ..ca.issuer import Issuer, issuers_of
from ..config.config import Config
from ..core.certificate import Certificate
from ..core.errors import (
    AcmeError,
    BackingOff,
    ClientLimited,
    IssuanceError,
    NameNotAllowed,
    NoControlNode,
    NotFound,
    RecordRefused,
    WrongNode,
)
from ..core.events import CertificateRemoved, Events
from ..core.instrumentation import Instrumentation
from ..core.names import ServerName, Subject
from ..core.revocation import Revoked
from ..core.structured_logging import fields
from ..core.thread_pools import ThreadPools
from ..store.certificate_writer import CertificateWriter
from ..store.change_feed import ChangeFeed
from ..store.encryption import RecordCipher
from ..store.issuance_requests import IssuanceRequests
from ..store.nodes import Node, Nodes
from ..store.rate_limiter import RateLimiter
from ..store.renewal_schedule import RenewalSchedule
from ..store.store import Store
from .admission import Admission
from .ask import AskClient
from .backoff_registry import BackoffRegistry
from .cache import Cache
from .certificate_lookup import CertificateLookup, StoredCertificate
from .certificate_saver import CertificateSaver
from .configured_ca import ConfiguredCa, ca_of
from .control_client import ControlClient
from .exhausted_limits import ExhaustedLimits
from .failover import Failover
from .issuance_lock import IssuanceLock
from .negative_cache import NegativeCache
from .obtainer import Obtainer
from .requester import Requester
from .revoker import Replacing, Revoker
from .storage_health import StorageHealth

logger = logging.getLogger(__name__)

# Looks in storage for strangers that are under way at once; beyond them they get the fallback.
_MOST_LOOKS = 1_000


class Manager:
    """The certificates of one configuration on one storage. Use it from one event loop.

    ``measures`` hear how long things take; ``now`` (Unix seconds), ``draw`` (random in [0, 1)) and ``issuers`` are
    arguments for tests. Nothing is read or written before the first call; ``close`` ends it.
    """

    def __init__(
        self,
        config: Config,
        storage: Storage,
        *,
        measures: Instrumentation | None = None,
        issuers: Sequence[Issuer] | None = None,
        now: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Raises ``ConfigError`` for a CA or an account key that cannot be used."""
        self.config, self.now = config, now
        self.events = Events()
        self._measures = measures or Instrumentation()
        self.node = Node(secrets.token_hex(4), config.role, __version__, socket.gethostname(), now())
        self.threads = ThreadPools()
        sealing = RecordCipher.of(config)
        self.store = Store(storage, sealing)
        self.calendar = RenewalSchedule(storage)
        self.changes = ChangeFeed(storage, self.node.id)
        self.requests, self.nodes = IssuanceRequests(storage, sealing), Nodes(storage)
        self.on_scheduled: Callable[[float], None] = lambda at: None
        saving = CertificateWriter(self.store, self.calendar, self.changes)
        self.cas = tuple(
            ConfiguredCa(issuer, RateLimiter(storage, issuer.directory, issuer.limits, now))
            for issuer in issuers or issuers_of(config, self.store, self.threads)
        )
        self.failures = BackoffRegistry(
            config, tuple(ca.directory for ca in self.cas), self.store, self.threads, now, draw
        )
        self._admission = Admission(config.orders_per_client, now)
        self._obtaining = self._make_obtaining(saving)
        self.health = StorageHealth(storage, self.threads, self.node.id)
        self.cache = Cache(config, self.store, self.threads, self._measures, now)
        self.revoking = self._make_revoking(draw)
        self._refusals = NegativeCache(now)
        parts = (self.store, self.calendar, self.threads, config.renew_before, self.is_wanted)
        self._lookup = CertificateLookup(
            *parts, on_scheduled=lambda at: self.on_scheduled(at), now=now, admission=self._admission
        )

    def _make_obtaining(self, saving: CertificateWriter) -> Obtainer:
        config, threads, now, node = self.config, self.threads, self.now, self.node.id
        delegating = None if config.orders else ControlClient(self.requests, self.nodes, threads)
        return Obtainer(
            store=self.store,
            threads=threads,
            failures=self.failures,
            permission=AskClient(config.ask, threads, now) if config.ask else None,
            turns=IssuanceLock(self.store, threads, self.failures, delegating, node, self._measures),
            issuance=Failover(
                self.cas, threads, self.failures, self.events, self._measures, node, now, ExhaustedLimits(now)
            ),
            admission=self._admission,
            keeper=CertificateSaver(saving, threads, config.renew_before, now, lambda at: self.on_scheduled(at)),
            adopt=self._adopt,
            now=now,
        )

    def _make_revoking(self, draw: Callable[[], float]) -> Revoker:
        replacing = Replacing(self._replace, self.delete, lambda id, why: self._tell_removed(id, why, replaced=True))
        parts = (self.config, self.cas, self.store, self.threads, self.failures, replacing, self.node.id)
        return Revoker(*parts, now=self.now, draw=draw)

    async def certificate_for(
        self, name: ServerName, *, on_demand: bool, client: str | None = None
    ) -> Certificate | None:
        """Return the certificate to serve for ``name``, or None if there is none yet.

        With ``on_demand`` it is ordered where the options allow: ``wait`` returns when it is there, ``background`` at
        once. Raises ``NameNotAllowed`` for names that are not ours, ``IssuanceError`` and ``StorageError`` where it
        cannot be had; a caller that must not wait longer cancels, and the order goes on. ``client`` is the address
        of who asks, as far as it bounds what is ordered.
        """
        subject = self.config.subject(name)
        if subject is None or not (subject.managed or on_demand):
            raise NameNotAllowed(f"{name} is no name that the options let have a certificate")
        self._refuse_at_once(subject)
        try:
            self.health.require()
            found = await self._lookup.find_for_visitor(subject)
            stored = found.certificate
            if stored is not None and (self.is_wanted(subject, stored) or not on_demand):
                return self._adopt(subject, stored)
            return await self._on_demand(subject, found, client) if on_demand else None
        except StorageError as error:
            self.health.trouble(error)
            self._refusals.remember(subject.id, error)
            raise
        except ClientLimited:  # another client may bring the name
            raise
        except AcmeError as error:
            backoff = error if isinstance(error, BackingOff) else self.failures.known(subject)
            self._refusals.remember(subject.id, error, until=backoff.until if backoff else None)
            raise

    async def _on_demand(self, subject: Subject, found: StoredCertificate, client: str | None) -> Certificate | None:
        """Obtain it as the options say; what is stored is not what is wanted, but better than none."""
        stored, asker = found.certificate, _asker(subject, found)
        if self.config.on_demand == "wait":
            return await self._or_stored(subject, stored, self._obtaining.obtain(subject, stored, asker, client))
        if stored is not None:  # the renewer replaces it: ``_load`` has put it on the calendar
            return self._adopt(subject, stored)
        if self.config.on_demand == "off":
            raise IssuanceError(f"{subject}: no certificate is stored, and acme_on_demand is off")
        if self.failures.known(subject) is None:
            self._obtaining.start(subject, asker, client)
        return None

    async def _or_stored(
        self, subject: Subject, stored: Certificate | None, order: Awaitable[Certificate]
    ) -> Certificate:
        """Return what is ordered, or where none comes of it what is stored: it is not what is wanted, but served."""
        try:
            return await order
        except (IssuanceError, NoControlNode, RecordRefused, StorageError):
            if stored is None:
                raise
            return self._adopt(subject, stored)

    async def obtain(self, subject: Subject, replacing: Certificate | None = None) -> Certificate:
        """Return a certificate that is not ``replacing``: stored meanwhile by another node, or ordered.

        Any number of callers share one order, and any number of nodes too. Raises ``IssuanceError`` (``BackingOff``
        while an earlier failure is too recent), ``NameNotAllowed``, ``StorageError``: nothing is ordered while
        storage is down.
        """
        return await self._obtaining.obtain(subject, replacing, Requester.OPERATOR)

    async def ensure(self, subject: Subject) -> Certificate:
        """Return the stored certificate, or obtain one: for managed certificates, and for what data nodes ask for."""
        found = await self._lookup.find(subject)
        stored = found.certificate
        if stored is not None and self.is_wanted(subject, stored):
            return self._adopt(subject, stored)
        order = self._obtaining.obtain(subject, stored, _asker(subject, found))
        return await self._or_stored(subject, stored, order)

    async def issue(self, subject: Subject) -> Certificate:
        """Return the stored certificate, or obtain one for a person who asks, even if name or CA failed recently.

        Raises what ``obtain`` raises, although an old certificate of another CA or key type may still be served.
        """
        await self.failures.override(subject)
        stored = (await self._lookup.find(subject)).certificate
        if stored is not None and self.is_wanted(subject, stored):
            return self._adopt(subject, stored)
        return await self._obtaining.obtain_for_person(subject, stored)

    async def renew(self, subject: Subject) -> Certificate:
        """Order anew for a person who says so, whenever it is due; no failure before counts, of name or CA.

        Raises ``NotFound`` where none is stored, for a slip must not order what was never had; ``IssuanceError``,
        ``StorageError``, ``WrongNode`` on a data node.
        """
        self._require_orders()
        slot = await self.threads.storage(self.store.slot, subject.id)
        if slot.record is None and not slot.corrupt:
            raise NotFound(f"no certificate is stored for {subject.id}")
        return await self._obtaining.obtain_for_person(subject, slot.certificate)

    async def _replace(self, subject: Subject) -> Certificate:
        """Order anew in the place of one whose key is stolen: no failure of the name counts, but those of a CA do."""
        await self.failures.pardon(subject)
        stored = (await self.threads.storage(self.store.slot, subject.id)).certificate
        return await self.obtain(subject, replacing=stored)

    async def revoke(self, id: ServerName, reason: str) -> Revoked:
        """Have its CA revoke a certificate (RFC 8555 section 7.6), then delete it; ``reason`` is RFC 5280's word.

        For keyCompromise another is ordered first, with a new key, and is stored in its place if it comes within
        ``acme_handshake_wait``; where it does not come, the old one is revoked and deleted all the same. Where its CA
        cannot revoke it now, ``Revoker.finish`` is to be tried until it has (``RevocationRetrier`` does).

        Raises ``NotFound``, ``IssuanceError`` with the certificate left where it is, ``StorageError``, ``WrongNode``
        on a data node.
        """
        self._require_orders()
        return await self.revoking.revoke(id, reason)

    async def delete(self, id: ServerName, revocation: str | None = None) -> None:
        """Forget a certificate here and, within seconds, on every node. Raises ``StorageError``."""
        await self.threads.storage(self.store.delete, id)
        await self.threads.storage(self.changes.announce, id, self.now(), deleted=True)
        await self.cache.reload({id}, deleted=True)
        self._tell_removed(id, revocation)

    def _tell_removed(self, id: ServerName, revocation: str | None, *, replaced: bool = False) -> None:
        logger.info(
            "%s: certificate %s (node %s)",
            *(id, "revoked" if revocation else "deleted", self.node.id),
            extra=fields("certificate_removed", name=id, node=self.node.id, revocation=revocation),
        )
        self.events.publish(CertificateRemoved(id, revocation, self.node.id, replaced))

    def ordering(self) -> dict[ServerName, float]:
        """Return what this node is ordering, or waiting for another to order, and since when (Unix seconds)."""
        return {id: self.now() - seconds for id, seconds in self._obtaining.under_way().items()}

    def _require_orders(self) -> None:
        if not self.config.orders:
            raise WrongNode("this is a data node, which never talks to a CA; ask a control node")

    def is_ours(self, certificate: Certificate) -> bool:
        """Say whether a CA of the options issued it: another's is served only while none of ours can be had."""
        return self.ca_of(certificate) is not None or not self.config.orders

    def is_wanted(self, subject: Subject, certificate: Certificate) -> bool:
        """Say whether it is of a CA, and with a kind of key, of the options; another is served until one is there."""
        return self.is_ours(certificate) and self.config.accepts_key_type(subject, certificate.key_type)

    def ca_of(self, certificate: Certificate) -> ConfiguredCa | None:
        """Return the CA of the options that issued it, which is then asked when to renew it, and to revoke it."""
        return ca_of(certificate, self.cas)

    async def wait_idle(self) -> None:
        """Let the orders that are under way end."""
        await self._lookup.wait_idle()
        await self._obtaining.wait_idle()

    async def close(self) -> None:
        """Let the orders that are under way end, then let go of threads and storage."""
        await self.wait_idle()
        await self.threads.storage(self.store.storage.close)
        self.threads.close()

    def _adopt(self, subject: Subject, certificate: Certificate) -> Certificate:
        self.cache.put(subject, certificate)
        self._obtaining.issuance.note_chain(certificate)
        self._refusals.forget(subject.id)
        return certificate

    def _refuse_at_once(self, subject: Subject) -> None:
        self._refusals.repeat(subject.id)
        if len(self._lookup) >= _MOST_LOOKS and not subject.managed:
            raise BackingOff(f"{subject}: {_MOST_LOOKS} names are being looked up already", until=self.now())


def _asker(subject: Subject, found: StoredCertificate) -> Requester:
    """Return who wants what a visitor asks for: what is listed, or was ever stored, is the operator's own."""
    return Requester.OPERATOR if subject.managed or found.known else Requester.VISITOR
