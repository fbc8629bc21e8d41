"""What every handler of the admin API works with, as one value.

This module knows the parts; it must not know HTTP.
"""

from dataclasses import dataclass
from typing import Self

from ..lifecycle.manager import Manager
from .auth import Guard
from .certificate_service import CertificateService
from .documents import Document
from .inventory import Inventory
from .metrics import Metrics
from .node_state import NodeStateReader
from .status import describe_status
from .status_stream import StatusStream


@dataclass(frozen=True, slots=True)
class AdminContext:
    """The certificates and the state of one node, and who may ask for them."""

    manager: Manager
    inventory: Inventory
    service: CertificateService
    state: NodeStateReader
    stream: StatusStream
    guard: Guard
    metrics: Metrics

    @classmethod
    def of(cls, manager: Manager, inventory: Inventory, metrics: Metrics) -> Self:
        state = NodeStateReader(manager, inventory)

        async def read_status() -> Document:
            return describe_status(await state.read())

        return cls(
            manager=manager,
            inventory=inventory,
            service=CertificateService(manager, inventory),
            state=state,
            stream=StatusStream(read_status),
            guard=Guard(manager.config.admin_token),
            metrics=metrics,
        )
