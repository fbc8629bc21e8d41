"""Certificate remover: a certificate is deleted here and, within seconds, on every node.

This module knows the storage and who has to hear of it; it must not know why a certificate is deleted.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from acme_storage import StorageError

from ..core.events import CertificateRemoved, Events
from ..core.names import ServerName
from ..core.structured_logging import fields
from ..core.thread_pools import ThreadPools
from ..store.change_feed import ChangeFeed
from ..store.store import Store
from ..store.usage_marks import UsageMarks
from .cache import Cache

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CertificateRemover:
    """Use it from one event loop."""

    store: Store
    marks: UsageMarks
    changes: ChangeFeed
    threads: ThreadPools
    cache: Cache
    events: Events
    node: str
    now: Callable[[], float]

    async def delete(self, id: ServerName, revocation: str | None = None) -> None:
        """Delete it; ``revocation`` is RFC 5280's reason where its CA revoked it. Raises ``StorageError``."""
        # Before it, so that no node that finds the record gone takes it for lost and stores it again; and after it, for
        # a node that has looked in between.
        await self.threads.storage(self.changes.announce, id, self.now(), deleted=True)
        try:
            await self._delete(id)
        except StorageError:  # which may have deleted it all the same
            self.changes.doubt(id)
            raise
        self.report(id, revocation)
        await self.threads.storage(self.marks.delete, id)  # after the notes in memory, which the report ends

    async def _delete(self, id: ServerName) -> None:
        await self.threads.storage(self.store.delete, id)
        await self.threads.storage(self.changes.announce, id, self.now(), deleted=True)
        for absent in await self.cache.reload({id}):
            self.cache.forget(absent)

    def report(self, id: ServerName, revocation: str | None, *, replaced: bool = False) -> None:
        """Log and publish that it is gone; ``replaced`` where another is stored in its place already."""
        logger.info(
            "%s: certificate %s (node %s)",
            id,
            "revoked" if revocation else "deleted",
            self.node,
            extra=fields("certificate_removed", name=id, node=self.node, revocation=revocation),
        )
        self.events.publish(CertificateRemoved(id, revocation, self.node, replaced))
