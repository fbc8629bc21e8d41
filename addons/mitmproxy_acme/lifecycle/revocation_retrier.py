"""Unrevoked: stolen keys whose certificates their CAs could not revoke when it was said; tried until they have.

This module knows when to try; it must not know how a certificate is revoked, or why it could not be.
"""

import asyncio
import logging

from acme_storage import StorageError

from ..core.errors import AcmeError
from ..store.keys import revocation_scope
from .manager import Manager

logger = logging.getLogger(__name__)

# The longest rest between two looks at what is kept aside, mostly nothing: any node, or the command line, adds to it.
_REST, _LEAST_REST = 10.0, 0.5


class RevocationRetrier:
    """Finishes the revocations of one storage, as every node that orders does. ``run`` never returns; cancel it."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    async def run(self) -> None:
        """Try, rest, try again."""
        while True:
            rest = _REST
            try:
                rest = await self.round()
            except StorageError as error:
                self._manager.health.trouble(error)
            except Exception:  # whatever it is: a stolen key is not to live on for it
                logger.exception("the round of unfinished revocations failed")
            await asyncio.sleep(rest)

    async def round(self) -> float:
        """Try what is due, of names of ours; return how many seconds to rest. Raises ``StorageError``."""
        manager, next_at = self._manager, self._manager.now() + _REST
        for id in await manager.threads.storage(manager.store.compromised_ids):
            if manager.config.subject(id) is None:  # a name of other proxies on this storage
                continue
            backoff = await manager.threads.storage(manager.store.backoff, revocation_scope(id))
            if backoff is not None and backoff.until > manager.now():
                next_at = min(next_at, backoff.until)
                continue
            try:
                await manager.revoking.finish(id)
            except AcmeError as error:  # it is said, and put off, where it came up
                logger.debug("%s", error)
        return max(next_at - manager.now(), _LEAST_REST)
