"""What every handler of the admin API works with, as one value.

This module knows the parts; it must not know HTTP.
"""

from dataclasses import dataclass
from typing import Self

from ..lifecycle.manager import Manager
from .auth import Guard
from .certificate_service import CertificateService
from .documents import Document, describe_history
from .event_history import EventHistory
from .inventory import Inventory
from .metrics import Metrics
from .node_state import NodeStateReader
from .status import describe_status
from .status_stream import StatusStream
from .traffic import TrafficHistory


@dataclass(frozen=True, slots=True)
class AdminContext:
    """The certificates and the state of one node, and who may ask for them."""

    manager: Manager
    inventory: Inventory
    service: CertificateService
    state: NodeStateReader
    history: EventHistory
    traffic: TrafficHistory
    stream: StatusStream
    history_stream: StatusStream
    guard: Guard
    metrics: Metrics

    @classmethod
    def of(cls, manager: Manager, inventory: Inventory, metrics: Metrics) -> Self:
        state = NodeStateReader(manager, inventory)
        history, traffic = EventHistory(manager), TrafficHistory(metrics, manager.now)

        async def read_history() -> dict[str, Document]:
            return {"history": describe_history(await history.read())}

        async def read_all() -> dict[str, Document]:
            status = describe_status(await state.read())
            return {"status": status, **await read_history(), "traffic": traffic.document()}

        return cls(
            manager=manager,
            inventory=inventory,
            service=CertificateService(manager, inventory),
            state=state,
            history=history,
            traffic=traffic,
            stream=StatusStream(read_all),
            history_stream=StatusStream(read_history),
            guard=Guard(manager.config.admin_token),
            metrics=metrics,
        )
