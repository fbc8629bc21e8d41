"""Revocation retrier: revocations for a compromised key that a CA could not do at once are tried until it can.

This module knows when to try; it must not know how a certificate is revoked, or why it could not be.
"""

import asyncio
import logging
from collections.abc import Callable

from acme_storage import StorageError

from ..config.config import Config
from ..core.errors import AcmeError
from ..core.thread_pools import ThreadPools
from ..store.store import Store
from .revoker import Revoker
from .storage_health import StorageHealth

logger = logging.getLogger(__name__)

# The longest rest between two rounds, most of which find nothing: any node, or the command line, adds to it.
_REST, _LEAST_REST = 10.0, 0.5


class RevocationRetrier:
    """Finishes the revocations of one storage, as every node that orders does. ``run`` never returns; cancel it."""

    def __init__(
        self,
        config: Config,
        revoker: Revoker,
        store: Store,
        threads: ThreadPools,
        health: StorageHealth,
        now: Callable[[], float],
    ) -> None:
        self._config = config
        self._revoker = revoker
        self._store = store
        self._threads = threads
        self._health = health
        self._now = now

    async def run(self) -> None:
        """Try what is due, rest, and try again."""
        while True:
            rest = _REST
            try:
                rest = await self.round()
            except StorageError as error:
                self._health.trouble(error)
            except Exception:  # logged, so that one fault does not end all revocations
                logger.exception("the round of unfinished revocations failed")
            await asyncio.sleep(rest)

    async def round(self) -> float:
        """Try what is due, of names of ours; return how many seconds to rest. Raises ``StorageError``."""
        next_at = self._now() + _REST
        for id in await self._threads.storage(self._store.compromised_ids):
            if self._config.subject(id) is None:  # a name of other proxies on this storage
                continue
            backoff = await self._revoker.put_off(id)
            if backoff is not None and backoff.until > self._now():
                next_at = min(next_at, backoff.until)
                continue
            try:
                await self._revoker.finish(id)
            except AcmeError as error:  # logged and put off by the revoker
                logger.debug("%s", error)
        return max(next_at - self._now(), _LEAST_REST)
