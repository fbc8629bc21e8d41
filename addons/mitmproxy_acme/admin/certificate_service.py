"""The certificates as a person works with them: issue, renew, revoke, delete, show, list.

The command bar, the admin API and the command line all use this service, so that the same request in the same state has
the same outcome and the same reason everywhere. This module knows the manager and the inventory; it must not know who
asks, or how the answer travels.
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from acme_storage import StorageError

from ..core.certificate import Certificate
from ..core.errors import AcmeError, BackingOff, IssuanceError, NameNotAllowed, NoControlNode, NotFound, WrongNode
from ..core.events import CheckScheduled
from ..core.names import ServerName, Subject, name_of, options_for
from ..core.revocation import Revoked
from ..lifecycle.manager import Manager
from ..lifecycle.ordering.failure_scope import is_of_ca
from ..store.renewal_schedule import ScheduledCheck
from . import documents
from .certificate_rows import CertificateRow, SortKey, State
from .documents import Document
from .inventory import Inventory
from .problems import ISSUANCE_FAILED, ProblemKind, kind_of

_OVERDUE = (State.DUE, State.EXPIRING, State.EXPIRED)
_PAGE = 1_000


class Outcome(StrEnum):
    """What became of one certificate; the values are what a person reads."""

    OBTAINED = "obtained"
    RENEWED = "renewed"
    STORED = "stored already"
    FAILED = "failed"
    NOT_TRIED = "not tried"


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate that is stored as the options want it, and whether it is new."""

    outcome: Outcome
    certificate: Certificate

    def __str__(self) -> str:
        valid_until = documents.timestamp(self.certificate.not_after)
        return f"{self.outcome}, valid until {valid_until}, issued by {self.certificate.issuer_name}"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request failed. ``retry_at`` (Unix seconds) is when the next attempt may succeed, where that is known.

    ``stop`` says why no other certificate can be obtained now either; it is empty where another may be.
    """

    kind: ProblemKind
    reason: str
    retry_at: float | None = None
    stop: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list; ``after`` is what the next page follows, None on the last page."""

    documents: list[Document]
    after: str | None


class CertificateService:
    """The certificates of one manager. Use it from the manager's event loop.

    All methods raise ``StorageError`` while the storage is down.
    """

    def __init__(self, manager: Manager, inventory: Inventory) -> None:
        self.manager = manager
        self.inventory = inventory

    def subject(self, name: ServerName) -> Subject:
        """Return the certificate that the options allow for ``name``. Raises ``NameNotAllowed``."""
        subject = self.manager.config.subject(name)
        if subject is not None:
            return subject
        if self.manager.config.subject(name_of(name)) is not None:
            raise NameNotAllowed(f"host {name} has a second kind of key; add that kind to acme_key_type")
        raise NameNotAllowed(f"host {name} is {not_included(name)}")

    def require_orders(self) -> None:
        """Raise ``WrongNode`` on a node that never orders or revokes."""
        if not self.manager.config.orders:
            raise WrongNode("this is a data node, which never talks to a CA; ask a control node")

    async def issue(self, name: ServerName) -> Issued:
        """Return the stored certificate for ``name``, or obtain one now, even if an earlier attempt failed recently.

        Raises ``NameNotAllowed``, and ``IssuanceError`` although an old certificate of another CA, or with another kind
        of key, may still be served.
        """
        manager, subject = self.manager, self.subject(name)
        manager.health.require()
        before = (await manager.threads.storage(manager.store.slot, subject.id)).certificate
        certificate = await manager.issue(subject)
        is_same = before is not None and before.fingerprint == certificate.fingerprint
        return Issued(Outcome.STORED if is_same else Outcome.OBTAINED, certificate)

    async def renew(self, name: ServerName) -> Issued:
        """Order a new certificate in place of the stored one, due or not.

        Raises ``WrongNode`` on a data node, ``NotFound``, ``NameNotAllowed``, ``IssuanceError``.
        """
        self.require_orders()
        row = await self._require_row(name)
        return Issued(Outcome.RENEWED, await self.manager.renew(self.subject(row.id)))

    async def revoke(self, name: ServerName, reason: str) -> Revoked:
        """Have the CA revoke the stored certificate, then delete it on every node; see ``Manager.revoke``.

        Raises ``WrongNode`` on a data node, ``NotFound``, ``IssuanceError``.
        """
        self.require_orders()
        self.manager.health.require()
        return await self.manager.revoke(self.manager.config.id_of(name), reason)

    async def delete(self, name: ServerName) -> None:
        """Delete the stored certificate on every node without revoking it. Raises ``NotFound``."""
        await self.manager.delete((await self._require_row(name)).id)

    async def show(self, name: ServerName) -> Document:
        """Describe what is stored for ``name`` at this moment.

        Raises ``NotFound``, with the last failure where one is known.
        """
        return self.describe(await self._require_row(name))

    def describe(self, row: CertificateRow) -> Document:
        return documents.certificate(row, self.manager.config, self.manager.now(), self.inventory.failure_of(row.id))

    async def page(
        self,
        *,
        search: str = "",
        states: Collection[State] = (),
        invalid_only: bool = False,
        order: SortKey = SortKey.HOST,
        after: str = "",
        size: int,
    ) -> Page:
        """Describe one page of the certificates that have been read so far; see ``Inventory.select``."""
        rows, more = await self.manager.threads.background(
            self.inventory.select,
            search=search,
            states=states,
            invalid_only=invalid_only,
            order=order,
            after=after,
            size=size,
        )
        return Page([self.describe(row) for row in rows], rows[-1].sort_value(order) if more else None)

    async def renew_all_due(self) -> None:
        """Have the renewer check every certificate that is due, now. Raises ``WrongNode`` on a data node."""
        self.require_orders()
        manager, after, more = self.manager, "", True
        manager.health.require()  # without any certificate due nothing below would notice
        now = manager.now()
        while more:
            rows, more = await manager.threads.background(
                self.inventory.select, states=_OVERDUE, after=after, size=_PAGE
            )
            await manager.threads.storage(self._schedule, rows, now)
            after = rows[-1].id if rows else after
        manager.events.publish(CheckScheduled(now))

    def _schedule(self, rows: list[CertificateRow], at: float) -> None:
        for row in rows:
            self.manager.schedule.add(ScheduledCheck(row.id, at))

    async def _require_row(self, name: ServerName) -> CertificateRow:
        self.manager.health.require()
        id = self.manager.config.id_of(name)
        row = await self.inventory.read(id)
        if row is None:
            raise self.not_found(id)
        return row

    def not_found(self, id: ServerName) -> NotFound:
        """Return the error for a certificate that is not stored, with why its last order failed."""
        failure = self.inventory.failure_of(id)
        if failure is None:
            return NotFound(f"no certificate is stored for {id}")
        retry_at = documents.timestamp(failure.until)
        return NotFound(f"no certificate is stored for {id}: {failure.reason}; next attempt at {retry_at}")

    def explain(self, name: ServerName, error: AcmeError | StorageError) -> Failure:
        """Return why a request for ``name`` failed, and when to repeat it."""
        kind, reason, backoffs = kind_of(error) or ISSUANCE_FAILED, str(error), self.manager.backoffs
        if isinstance(error, StorageError | WrongNode | NoControlNode):
            return Failure(kind, reason, stop=reason)
        if not isinstance(error, IssuanceError):
            return Failure(kind, reason)
        subject = self.manager.config.subject(name)
        active = backoffs.active_backoff(subject) if subject is not None else None
        backoff = error if isinstance(error, BackingOff) else active
        return Failure(kind, reason, backoff.until if backoff else None, self._stop(error))

    def _stop(self, error: IssuanceError) -> str:
        """Return why no other certificate can be obtained either; empty where one may be.

        A CA's own failure says it too: what a person asks for meanwhile clears the CA's backoff.
        """
        stopped = self.manager.backoffs.stopped()
        if stopped is not None:
            return stopped.reason
        return str(error) if is_of_ca(error) and len(self.manager.cas) == 1 else ""


def not_included(name: ServerName) -> str:
    """Say which options could allow ``name``, in Kong's words."""
    return f"not included in {' or '.join(options_for(name))}"
