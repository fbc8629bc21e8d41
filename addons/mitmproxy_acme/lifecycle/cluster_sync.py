"""Cluster sync: what the other nodes changed, and what data nodes ask for.

This module knows when to read; it must not know how a certificate is obtained or served.
"""

import logging
import math
from collections.abc import Callable
from functools import partial

from acme_storage import StorageError

from ..config.config import Config
from ..core.backoff import Backoff
from ..core.errors import AcmeError, BackingOff
from ..core.events import ChangedElsewhere, CheckScheduled, Events
from ..core.names import ServerName
from ..core.single_flight import SingleFlight
from ..core.thread_pools import ThreadPools
from ..store.change_feed import ANNOUNCED_FOR, READ_ALL_EVERY, READ_EVERY, ChangeFeed
from ..store.issuance_requests import READ_EVERY as READ_REQUESTS_EVERY
from ..store.issuance_requests import IssuanceRequests
from ..store.nodes import Node, Nodes
from .cache import Cache
from .certificate_provider import CertificateProvider
from .lost_records import LostRecords
from .storage_health import StorageHealth

logger = logging.getLogger(__name__)

# Seconds for which data nodes repeat a refusal: as long as one is repeated from memory.
_REFUSED_FOR = 10.0


class ClusterSync:
    """Follows one storage. ``run`` never returns; cancel it, then ``close``."""

    def __init__(
        self,
        *,
        config: Config,
        provider: CertificateProvider,
        cache: Cache,
        lost: LostRecords,
        changes: ChangeFeed,
        requests: IssuanceRequests,
        nodes: Nodes,
        node: Node,
        threads: ThreadPools,
        health: StorageHealth,
        events: Events,
        now: Callable[[], float],
    ) -> None:
        self._config = config
        self._provider = provider
        self._cache = cache
        self._lost = lost
        self._changes = changes
        self._requests = requests
        self._nodes = nodes
        self._node = node
        self._threads = threads
        self._health = health
        self._events = events
        self._now = now
        self._answers: SingleFlight[ServerName, None] = SingleFlight("answer")
        self._changed: set[ServerName] = set()
        self._read_at = self._read_all_at = -math.inf
        self._heartbeat_at = -math.inf

    async def run(self) -> None:
        """Read what is due, rest, and read again."""
        interval = READ_REQUESTS_EVERY if self._is_control else READ_EVERY
        while True:
            if await self._health.check():
                self._lost.suspect()
                self._events.publish(CheckScheduled(self._now()))  # the renewals that had to wait for the storage
            try:
                self._health.require()
                await self.sync()
            except StorageError as error:
                self._health.trouble(error)
            except Exception:  # logged, so that one fault does not end the sync for ever
                logger.exception("the changes of the other nodes could not be read")
            await self._health.rest(interval)

    async def close(self) -> None:
        """Wait for the answers under way, and announce that this node is down."""
        await self._answers.wait_idle()
        try:
            await self._threads.storage(self._nodes.sign_off, self._node)
        except StorageError as error:
            logger.debug("the other nodes will notice without a message that this one is down: %s", error)

    async def sync(self) -> None:
        """Do what is due now. Raises ``StorageError``."""
        now = self._now()
        await self._heartbeat(now)
        if _has_passed(READ_EVERY, self._read_at, now):
            await self._read(now)
        if self._is_control:
            await self._answer_requests(now)

    @property
    def _is_control(self) -> bool:
        return self._config.role == "control"

    async def _heartbeat(self, now: float) -> None:
        if _has_passed(self._node.heartbeat_interval, self._heartbeat_at, now):
            try:
                await self._threads.storage(self._nodes.heartbeat, self._node, now)
                self._heartbeat_at = now
            except StorageError as error:  # a disk that is full or read-only can be read all the same
                self._health.trouble(error)

    async def _read(self, now: float) -> None:
        missed = _has_passed(ANNOUNCED_FOR / 2, self._read_at, now)
        all = missed or _has_passed(READ_ALL_EVERY, self._read_all_at, now)
        # Kept until the cache has reloaded them: an announcement is read only once.
        self._changed.update(await self._threads.storage(self._changes.read_new, now, all=all))
        if self._changed:
            absent = await self._cache.reload(self._changed)
            # What is absent and was not deleted is lost: an announcement may also be of what another node had stored.
            for id in await self._threads.storage(self._changes.deletions, absent) if absent else ():
                self._cache.forget(id)
            self._events.publish(ChangedElsewhere(frozenset(self._changed)))
            self._changed.clear()
            # They are in the schedule: this node may outlive the one that listed them.
            self._events.publish(CheckScheduled(now))
        if missed:  # the storage was down, or this machine slept
            await self._cache.reload()
        await self._lost.restore()
        self._read_at = now
        if all:
            self._read_all_at = now

    async def _answer_requests(self, now: float) -> None:
        for id in await self._threads.storage(self._requests.pending, now):
            self._answers.start(id, partial(self._answer, id))

    async def _answer(self, id: ServerName) -> None:
        """Have the certificate stored, or say why there is none."""
        subject = self._config.subject(id)
        for_person = await self._threads.storage(self._requests.is_for_person, id)
        try:
            if subject is None:
                until = self._now() + _REFUSED_FOR
                raise BackingOff("no option of the control node allows a certificate for the name", until=until)
            await (self._provider.issue(subject) if for_person else self._provider.ensure(subject))
        except AcmeError as error:
            refuse = partial(self._requests.refuse, for_person=for_person)
            await self._threads.storage(refuse, id, self._refusal(error), _REFUSED_FOR)
        else:
            await self._threads.storage(self._requests.fulfil, id)

    def _refusal(self, error: AcmeError) -> Backoff:
        until = error.until if isinstance(error, BackingOff) else self._now() + _REFUSED_FOR
        return Backoff(1, until, str(error))


def _has_passed(seconds: float, since: float, now: float) -> bool:
    """Say whether so many seconds have passed; True as well where the clock was set back meanwhile."""
    return not 0 <= now - since < seconds
