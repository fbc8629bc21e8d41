"""The certificates of a storage, with a manager of this process.

This module knows the manager's service; it must not know the commands. This process orders, and the proxies answer
http-01: the challenges are in the storage that all share.
"""

from collections.abc import AsyncIterator, Awaitable, Collection
from pathlib import Path
from typing import Self

from ..admin.certificate_rows import State
from ..admin.certificate_service import CertificateService, Issued
from ..admin.documents import Document, timestamp
from ..admin.inventory import Inventory
from ..config.config import Config
from ..core.errors import AcmeError
from ..core.names import ServerName
from ..core.revocation import COMPROMISED
from ..lifecycle.manager import Manager
from ..store.nodes import Node
from .backend import Result
from .environment import open_shared

_PAGE = 1_000


class StorageBackend:
    """The certificates of a storage. ``open`` makes one; use it from one event loop."""

    def __init__(self, manager: Manager, nodes: list[Node]) -> None:
        """``nodes`` are the proxies that are up."""
        self._manager = manager
        self._inventory = Inventory(manager)
        self._service = CertificateService(manager, self._inventory)
        self._nodes = nodes

    @classmethod
    async def open(cls, config: Config, confdir: Path) -> Self:
        """Open the storage. Raises ``ConfigError``, ``StorageError``."""
        manager = Manager(config, open_shared(config, confdir))
        return cls(manager, await manager.threads.storage(manager.nodes.list_up))

    @property
    def description(self) -> str:
        kind = self._manager.config.storage.partition(":")[0]
        up = len(self._nodes)
        proxies = "no proxy uses it now" if not up else "1 proxy uses it" if up == 1 else f"{up} proxies use it"
        return f"using the {kind} storage directly, without the admin API ({proxies})"

    async def select(self, *, search: str = "", states: Collection[State] = ()) -> AsyncIterator[Document]:
        await self._inventory.load()
        after: str | None = ""
        while after is not None:
            page = await self._service.page(search=search, states=states, after=after, size=_PAGE)
            for document in page.documents:
                yield document
            after = page.after

    async def get(self, name: ServerName) -> Document:
        await self._inventory.read_failures()
        return await self._service.show(name)

    async def issue(self, name: ServerName) -> Result:
        return await self._result(name, self._service.issue(name))

    async def renew(self, name: ServerName) -> Result:
        return await self._result(name, self._service.renew(name))

    async def revoke(self, name: ServerName, reason: str) -> str:
        revoked = await self._service.revoke(name, reason)
        return f"certificate for host {self._manager.config.id_of(name)} is {revoked}" if reason == COMPROMISED else ""

    async def close(self) -> None:
        await self._manager.close()

    async def _result(self, name: ServerName, work: Awaitable[Issued]) -> Result:
        try:
            issued = await work
        except AcmeError as error:
            failure = self._service.explain(name, error)
            retry_at = timestamp(failure.retry_at) if failure.retry_at is not None else None
            return Result.failed(name, failure.kind.type, failure.reason, retry_at, failure.stop)
        return Result(issued.certificate.id, issued.outcome, await self._service.show(issued.certificate.id))
