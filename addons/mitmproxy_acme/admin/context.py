"""What a person works with: one value, handed to every resource of the admin API.

This module knows the parts; it must not know HTTP.
"""

from dataclasses import dataclass
from typing import Self

from ..lifecycle.manager import Manager
from ..store.renewal_schedule import ScheduledCheck
from .auth import Guard
from .certificate_rows import CertificateRow, State
from .cluster_state import ClusterStateReader
from .documents import Document, certificate
from .inventory import Inventory
from .metrics import Metrics
from .status import StatusReporter
from .status_stream import StatusStream

_OVERDUE = (State.DUE, State.EXPIRING, State.EXPIRED)
_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class AdminContext:
    """The manager, what is known of its storage, and who may ask."""

    manager: Manager
    inventory: Inventory
    surroundings: ClusterStateReader
    status: StatusReporter
    stream: StatusStream
    guard: Guard
    metrics: Metrics

    @classmethod
    def of(cls, manager: Manager, inventory: Inventory, metrics: Metrics) -> Self:
        """Set up the context of a manager."""
        surroundings = ClusterStateReader(manager)
        status = StatusReporter(manager, inventory, surroundings)
        guard = Guard(manager.config.admin_token)
        return cls(manager, inventory, surroundings, status, StatusStream(status.look), guard, metrics)

    def describe(self, row: CertificateRow) -> Document:
        return certificate(row, self.manager.config, self.manager.now(), self.inventory.failure_of(row.id))

    async def renew_all_due(self) -> None:
        """Have the renewer look at whatever is due, now. Raises ``StorageError``."""
        manager, after, now = self.manager, "", self.manager.now()
        more = True
        while more:
            rows, more = await manager.threads.operating(
                self.inventory.select, states=_OVERDUE, after=after, size=_PAGE
            )
            await manager.threads.storage(self._list, rows, now)
            after = rows[-1].id if rows else after
        manager.on_scheduled(now)

    def _list(self, rows: list[CertificateRow], at: float) -> None:
        for row in rows:
            self.manager.calendar.add(ScheduledCheck(row.id, at))
