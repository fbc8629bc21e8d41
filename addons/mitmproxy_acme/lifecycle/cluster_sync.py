"""Feed: what the other nodes of the cluster changed, and what data nodes ask for.

This module knows the rhythm of looking; it must not know how a certificate is obtained or served (the manager does).
"""

import logging
import math
from functools import partial

from acme_storage import StorageError

from ..core.backoff import Backoff
from ..core.errors import AcmeError, BackingOff
from ..core.events import ChangedElsewhere
from ..core.names import ServerName
from ..core.single_flight import SingleFlight
from ..store.change_feed import ANNOUNCED_FOR, READ_EVERY
from ..store.issuance_requests import READ_EVERY as READ_REQUESTS_EVERY
from .manager import Manager

logger = logging.getLogger(__name__)

# How long a refusal is told to data nodes: as long as one is repeated from memory.
_REFUSED_FOR = 10.0


class ClusterSync:
    """Follows the storage of one manager. ``run`` never returns; cancel it, then ``close``."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._controls = manager.config.role == "control"
        self._answers: SingleFlight[ServerName, None] = SingleFlight("answer")
        self._changed: set[ServerName] = set()
        self._read_at = -math.inf
        self._said_at = -math.inf

    async def run(self) -> None:
        """Look, rest, look again."""
        beat = READ_REQUESTS_EVERY if self._controls else READ_EVERY
        health = self._manager.health
        while True:
            if await health.look():
                self._manager.on_scheduled(self._manager.now())  # what had to wait for it waits no longer
            try:
                health.require()
                await self.look()
            except StorageError as error:
                health.trouble(error)
            except Exception:  # whatever it is: a node that no longer follows is noticed when it is too late
                logger.exception("the feed could not be read")
            await health.rest(beat)

    async def close(self) -> None:
        """Let the answers under way end, and say that this node is down."""
        await self._answers.wait_idle()
        try:
            await self._manager.threads.storage(self._manager.nodes.sign_off, self._manager.node)
        except StorageError as error:
            logger.debug("the other nodes notice by themselves that this one is down: %s", error)

    async def look(self) -> None:
        """Do what is due now. Raises ``StorageError``."""
        now = self._manager.now()
        await self._say_up(now)
        if _has_passed(READ_EVERY, self._read_at, now):
            await self._read(now)
        if self._controls:
            await self._control(now)

    async def _say_up(self, now: float) -> None:
        manager = self._manager
        if _has_passed(manager.node.heartbeat_interval, self._said_at, now):
            try:
                await manager.threads.storage(manager.nodes.heartbeat, manager.node)
                self._said_at = now
            except StorageError as error:  # a disk that is full or read-only can be read all the same
                manager.health.trouble(error)

    async def _read(self, now: float) -> None:
        manager = self._manager
        missed = _has_passed(ANNOUNCED_FOR / 2, self._read_at, now)
        # Kept until they have been looked at: what is read once is not told again.
        self._changed.update(await manager.threads.storage(manager.changes.read_new, now, all=missed))
        if self._changed:
            await manager.cache.reload(self._changed, deleted=True)
            manager.events.publish(ChangedElsewhere(frozenset(self._changed)))
            self._changed.clear()
            manager.on_scheduled(now)  # they are on the calendar, for whoever outlives the node that listed them
        if missed:  # the storage was down, or this machine slept
            await manager.cache.reload()
        self._read_at = now

    async def _control(self, now: float) -> None:
        manager = self._manager
        for id in await manager.threads.storage(manager.requests.pending, now):
            self._answers.start(id, partial(self._answer, id))

    async def _answer(self, id: ServerName) -> None:
        """Have the certificate stored, or say why it cannot be had."""
        manager = self._manager
        subject = manager.config.subject(id)
        for_person = await manager.threads.storage(manager.requests.is_for_person, id)
        try:
            if subject is None:
                raise BackingOff("its options let the name have no certificate", until=manager.now() + _REFUSED_FOR)
            await (manager.issue(subject) if for_person else manager.ensure(subject))
        except AcmeError as error:
            refuse = partial(manager.requests.refuse, for_person=for_person)
            await manager.threads.storage(refuse, id, self._refusal(error), _REFUSED_FOR)
        else:
            await manager.threads.storage(manager.requests.fulfil, id)

    def _refusal(self, error: AcmeError) -> Backoff:
        until = error.until if isinstance(error, BackingOff) else self._manager.now() + _REFUSED_FOR
        return Backoff(1, until, str(error))


def _has_passed(pause: float, since: float, now: float) -> bool:
    """Say whether so many seconds have passed; and where the clock was set back meanwhile, for nobody knows then."""
    return not 0 <= now - since < pause
