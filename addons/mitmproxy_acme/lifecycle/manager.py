"""Manager: the one object that handshakes, the admin API, the commands and the command line use for certificates.

This module knows which part answers which call; it must not know mitmproxy, or how any part works.
"""

import random
import time
from collections.abc import Callable, Sequence

from acme_storage import Storage

from ..ca.issuer import Issuer
from ..config.config import Config
from ..core.certificate import Certificate
from ..core.errors import WrongNode
from ..core.instrumentation import Instrumentation
from ..core.names import ServerName, Subject
from ..core.revocation import Revoked
from ..core.thread_pools import ThreadPools
from .cluster_sync import ClusterSync
from .composition import make_base, make_parts
from .ordering.order_request import OrderRequest, Requester
from .predecessor import Predecessor
from .renewal.due_checks import DueChecks
from .renewal.expiry_warning import ExpiryWarning
from .renewal.housekeeper import Housekeeper
from .renewal.idle_names import IdleNames
from .renewal.renewal_windows import RenewalWindows
from .renewal.renewer import Renewer
from .renewal.unlisted_checks import UnlistedChecks
from .revocation_retrier import RevocationRetrier


class Manager:
    """The certificates of one configuration on one storage. Use it from one event loop.

    ``measures`` hear how long things take; ``now`` (Unix seconds), ``monotonic`` (seconds), ``draw`` (random in
    [0, 1)), ``issuers`` and ``threads`` are arguments for tests. Nothing is read or written before the first call;
    ``close`` ends it.
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
        monotonic: Callable[[], float] = time.monotonic,
        threads: ThreadPools | None = None,
        predecessor: Predecessor | None = None,
    ) -> None:
        """``predecessor`` is asked before anything is ordered, if this node has used another storage until now.

        Raises ``ConfigError`` for a CA or an account key that cannot be used.
        """
        self._base = base = make_base(config, storage, measures, now, monotonic, threads or ThreadPools(), predecessor)
        self.predecessor = predecessor
        self._parts = parts = make_parts(base, issuers, draw)
        # What the rooms above read.
        self.config, self.now, self.events = config, now, base.events
        self.event_log, self.recorder = base.event_log, base.recorder
        self.node, self.nodes = base.node, base.nodes
        self.threads, self.health = base.threads, base.health
        self.store, self.schedule = base.store, base.schedule
        self.usage = parts.usage
        self.cas, self.backoffs, self.cache = parts.cas, parts.backoffs, parts.cache

    async def certificate_for(
        self, name: ServerName, *, on_demand: bool, client: str | None = None
    ) -> Certificate | None:
        """Return the certificate to serve for ``name``, or None if there is none yet.

        With ``on_demand`` it is ordered where the options allow: ``wait`` returns when it is stored, ``background`` at
        once. Raises ``NameNotAllowed`` for a name that no option allows, ``AcmeError`` and ``StorageError`` where there
        is no certificate. A caller that must not wait longer cancels, and the order goes on. ``client`` is the address
        of the client, for ``acme_orders_per_client``.
        """
        return await self._parts.provider.for_handshake(name, on_demand=on_demand, client=client)

    async def obtain(self, subject: Subject, replacing: Certificate | None = None) -> Certificate:
        """Return a certificate that is not ``replacing``: stored meanwhile by another node, or ordered.

        All callers share one order, and all nodes too. Raises ``IssuanceError`` (``BackingOff`` while an earlier
        failure is too recent), ``NameNotAllowed``, ``NoControlNode``, ``RecordRefused``, and ``StorageError``: nothing
        is ordered while storage is down.
        """
        return await self._parts.obtainer.obtain(OrderRequest(subject, Requester.OPERATOR, replacing))

    async def ensure(self, subject: Subject) -> Certificate:
        """Return the stored certificate, or obtain one. Raises what ``obtain`` does."""
        return await self._parts.provider.ensure(subject)

    async def issue(self, subject: Subject) -> Certificate:
        """Return the stored certificate, or obtain one for a person: no earlier failure counts, of the name or of a CA.

        Raises what ``obtain`` does, although an old certificate of another CA or key type may still be served.
        """
        return await self._parts.provider.issue(subject)

    async def renew(self, subject: Subject) -> Certificate:
        """Order a new one for a person, due or not; no earlier failure counts, of the name or of a CA.

        Raises ``NotFound`` where none is stored, ``WrongNode`` on a data node, and what ``obtain`` does.
        """
        self._require_orders()
        return await self._parts.provider.renew(subject)

    async def revoke(self, id: ServerName, reason: str) -> Revoked:
        """Have its CA revoke a certificate (RFC 8555 section 7.6), then delete it; ``reason`` is RFC 5280's word.

        For keyCompromise another is ordered first, with a new key, and stored in its place if it comes within
        ``acme_handshake_wait``; if it does not, the old one is revoked and deleted all the same. Where its CA cannot
        revoke it now, ``RevocationRetrier`` tries again until it can.

        Raises ``NotFound``, ``IssuanceError`` with the certificate left in place, ``StorageError``, ``WrongNode`` on a
        data node.
        """
        self._require_orders()
        return await self._parts.revoker.revoke(id, reason)

    async def delete(self, id: ServerName) -> None:
        """Delete a certificate here and, within seconds, on every node. Raises ``StorageError``."""
        await self._parts.remover.delete(id)

    def as_predecessor(self) -> Predecessor:
        """Return what the manager of another storage asks; close it before this manager."""
        base, parts = self._base, self._parts
        return Predecessor(
            base.store, base.threads, base.health, parts.lookup.wait_for, parts.obtainer.order_of, self.now
        )

    def ordering(self) -> dict[ServerName, float]:
        """Return what this node is ordering, or awaiting from another node, and since when (Unix seconds)."""
        return {id: self.now() - seconds for id, seconds in self._parts.obtainer.under_way().items()}

    def is_wanted(self, subject: Subject, certificate: Certificate) -> bool:
        """Say whether a CA of the options issued it, with a kind of key of the options."""
        return self._parts.policy.is_wanted(subject, certificate)

    def is_idle(self, certificate: Certificate) -> bool:
        """Say whether it is not renewed because no client has asked for it. Blocks. Raises ``StorageError``."""
        config, marks = self.config, self._base.marks
        if not config.lets_idle_expire or config.manages(certificate.id):
            return False
        return marks.is_idle(certificate.id, certificate.begun)

    def make_renewer(self) -> Renewer:
        """Make what renews the certificates. Run one per manager."""
        base, parts = self._base, self._parts
        renewer = Renewer(
            config=base.config,
            provider=parts.provider,
            obtainer=parts.obtainer,
            policy=parts.policy,
            windows=self._make_renewal_windows(),
            backoffs=parts.backoffs,
            cache=parts.cache,
            store=base.store,
            schedule=base.schedule,
            due=DueChecks(base.config, base.schedule, base.store, base.node.id),
            idle=self._make_idle_names(),
            unlisted=UnlistedChecks(base.config, parts.backoffs, parts.usage),
            warning=ExpiryWarning(parts.policy, base.events, base.node.id),
            threads=base.threads,
            health=base.health,
            now=base.now,
        )
        base.events.subscribe(renewer.happened)
        return renewer

    def _make_renewal_windows(self) -> RenewalWindows:
        base, parts = self._base, self._parts
        return RenewalWindows(
            base.config.renew_before,
            parts.policy,
            parts.backoffs,
            base.schedule,
            base.threads,
            base.events,
            base.node.id,
            base.now,
        )

    def _make_idle_names(self) -> IdleNames:
        base = self._base
        return IdleNames(
            base.config,
            base.marks,
            base.schedule,
            base.expired,
            base.changes,
            base.threads,
            base.events,
            base.node.id,
            base.now,
        )

    def make_cluster_sync(self) -> ClusterSync:
        """Make what follows the other nodes. Run one per manager."""
        base, parts = self._base, self._parts
        return ClusterSync(
            config=base.config,
            provider=parts.provider,
            cache=parts.cache,
            lost=parts.lost,
            changes=base.changes,
            requests=base.requests,
            nodes=base.nodes,
            node=base.node,
            threads=base.threads,
            health=base.health,
            events=base.events,
            now=base.now,
        )

    def make_revocation_retrier(self) -> RevocationRetrier:
        """Make what finishes the revocations that a CA could not do at once. Run one per manager that orders."""
        base = self._base
        return RevocationRetrier(base.config, self._parts.revoker, base.store, base.threads, base.health, now=base.now)

    def make_housekeeper(self) -> Housekeeper:
        """Make what removes certificates that expired long ago. Run one per manager that orders."""
        base, parts = self._base, self._parts
        return Housekeeper(
            config=base.config,
            directories=tuple(ca.directory for ca in parts.cas),
            store=base.store,
            expired=base.expired,
            schedule=base.schedule,
            changes=base.changes,
            threads=base.threads,
            health=base.health,
            events=base.events,
            node=base.node.id,
            now=base.now,
            clock=base.clock,
        )

    async def wait_idle(self) -> None:
        """Wait until the orders that are under way have ended, and are in the event log."""
        await self._parts.lookup.wait_idle()
        await self._parts.obtainer.wait_idle()
        await self._base.recorder.wait_idle()

    async def close(self) -> None:
        """Wait until the orders that are under way have ended, then close threads and storage."""
        await self.wait_idle()
        await self.usage.flush()
        await self.threads.storage(self.store.storage.close)
        self.threads.close()

    def _require_orders(self) -> None:
        if not self.config.orders:
            raise WrongNode("this is a data node, which never talks to a CA; ask a control node")
