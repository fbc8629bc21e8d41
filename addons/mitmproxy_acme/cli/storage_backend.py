"""Local: the certificates by way of the storage itself, with a manager of this process.

This module knows the manager; it must not know who asks. What it orders is ordered by this process, while http-01 is
answered by the proxies: the challenges lie in the storage that they share.
"""

from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Self

from ..admin import documents
from ..admin.certificate_rows import CertificateRow, State
from ..admin.documents import Document
from ..admin.inventory import Inventory
from ..config.config import Config
from ..core.errors import (
    AcmeError,
    BackingOff,
    ChallengeFailed,
    IssuanceError,
    LimitReached,
    NameNotAllowed,
    NoControlNode,
    RateLimited,
    WrongNode,
)
from ..core.names import ServerName, Subject, options_for
from ..core.revocation import COMPROMISED
from ..lifecycle.manager import Manager
from ..store.nodes import Node
from .backend import STILL_THE_OLD, Outcome, Result, not_found
from .environment import open_shared

_PAGE = 1_000


class StorageBackend:
    """The certificates of a storage. ``open`` makes one; use it from one event loop."""

    def __init__(self, manager: Manager, nodes: list[Node]) -> None:
        """``nodes`` are the proxies that are up."""
        self._manager = manager
        self._inventory = Inventory(manager)
        self._nodes = nodes

    @classmethod
    async def open(cls, config: Config, confdir: Path) -> Self:
        """Open the storage. Raises ``ConfigError``, ``StorageError``."""
        manager = Manager(config, open_shared(config, confdir))
        return cls(manager, await manager.threads.storage(manager.nodes.up))

    @property
    def description(self) -> str:
        kind = self._manager.config.storage.partition(":")[0]
        up = len(self._nodes)
        proxies = f"{up} proxies up on it" if up != 1 else "1 proxy up on it"
        return f"on the {kind} storage itself, without the admin API ({proxies if up else 'no proxy is up on it'})"

    async def select(self, *, search: str = "", states: Collection[State] = ()) -> AsyncIterator[Document]:
        await self._inventory.load()
        after, more = "", True
        while more:
            rows, more = self._inventory.select(search=search, states=states, after=after, size=_PAGE)
            for row in rows:
                yield self._describe(row)
                after = row.id

    async def get(self, name: ServerName) -> Document:
        await self._inventory.read_failures()
        row = await self._inventory.read(self._manager.config.id_of(name))
        if row is None:
            failure = self._inventory.failure_of(name)
            why = documents.failure_of(name, failure) if failure is not None else None
            raise not_found(name, why)
        return self._describe(row)

    async def issue(self, name: ServerName) -> Result:
        manager = self._manager
        try:
            subject = self._subject(name)
            before = (await manager.threads.storage(manager.store.slot, subject.id)).certificate
            certificate = await manager.issue(subject)
        except AcmeError as error:
            return self._failed(name, error)
        if not manager.is_wanted(subject, certificate):
            return self._failed(name, manager.failures.known(subject) or IssuanceError(STILL_THE_OLD))
        same = before is not None and before.fingerprint == certificate.fingerprint
        return Result(subject.id, Outcome.STORED if same else Outcome.OBTAINED, await self._document(subject))

    async def renew(self, name: ServerName) -> Result:
        try:
            subject = self._subject(name)
            await self._manager.renew(subject)
        except AcmeError as error:
            return self._failed(name, error)
        return Result(subject.id, Outcome.RENEWED, await self._document(subject))

    async def revoke(self, name: ServerName, reason: str) -> str:
        id = self._manager.config.id_of(name)
        revoked = await self._manager.revoke(id, reason)
        return f"certificate for host {id} is {revoked}" if reason == COMPROMISED else ""

    async def close(self) -> None:
        await self._manager.close()

    def _subject(self, name: ServerName) -> Subject:
        subject = self._manager.config.subject(name)
        if subject is None:
            raise NameNotAllowed(f"no option lets it have a certificate ({', '.join(options_for(name))})")
        return subject

    async def _document(self, subject: Subject) -> Document | None:
        row = await self._inventory.read(subject.id)
        return self._describe(row) if row is not None else None

    def _describe(self, row: CertificateRow) -> Document:
        manager = self._manager
        return documents.certificate(row, manager.config, manager.now(), self._inventory.failure_of(row.id))

    def _failed(self, name: ServerName, error: AcmeError) -> Result:
        manager = self._manager
        subject = manager.config.subject(name)
        backoff = error if isinstance(error, BackingOff) else manager.failures.known(subject) if subject else None
        whole = manager.failures.stopped()
        stop = whole.reason if whole else ""
        if isinstance(error, NoControlNode | WrongNode):
            stop = str(error)
        return Result(
            name,
            Outcome.FAILED,
            reason=str(error),
            retry_at=documents.timestamp(backoff.until) if backoff else None,
            limited=isinstance(error, RateLimited | LimitReached),
            unvalidated=isinstance(error, ChallengeFailed),
            stop=stop,
        )
