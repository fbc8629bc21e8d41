"""Lease holder: a lease is extended while work runs, and released afterwards, whatever happens.

This module knows the loop and one lease; it must not know the work.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from acme_storage import StorageError

from ..core.structured_logging import fields
from ..core.thread_pools import ThreadPools
from ..store.lease import EXTEND_EVERY, Lease

logger = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def hold_lease(lease: Lease, threads: ThreadPools) -> AsyncIterator[None]:
    """Hold ``lease`` for as long as the block runs. A lease that is lost ends no work: the final write is fenced."""
    extending = asyncio.get_running_loop().create_task(_extend(lease, threads), name=f"acme {lease.key}")
    try:
        yield
    finally:
        extending.cancel()
        with contextlib.suppress(StorageError):  # it expires
            await threads.storage(lease.release)


async def _extend(lease: Lease, threads: ThreadPools) -> None:
    while True:
        await asyncio.sleep(EXTEND_EVERY)
        try:
            if not await threads.storage(lease.extend):
                logger.warning(
                    "%s was lost to another node; the final write decides whose certificate is stored",
                    lease.key,
                    extra=fields("lease_lost", key=lease.key),
                )
                return
        except StorageError as error:
            logger.debug("%s is not extended: %s", lease.key, error)
