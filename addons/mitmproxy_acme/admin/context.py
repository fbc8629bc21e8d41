"""What every handler of the admin API works with, as one value.

This module knows the parts; it must not know HTTP.
"""

from dataclasses import dataclass
from typing import Self

from ..lifecycle.manager import Manager
from .auth import Guard
from .certificate_service import CertificateService
from .cluster_state import ClusterStateReader
from .inventory import Inventory
from .metrics import Metrics
from .status import StatusReporter
from .status_stream import StatusStream


@dataclass(frozen=True, slots=True)
class AdminContext:
    """The certificates and the state of one node, and who may ask for them."""

    manager: Manager
    inventory: Inventory
    service: CertificateService
    cluster: ClusterStateReader
    status: StatusReporter
    stream: StatusStream
    guard: Guard
    metrics: Metrics

    @classmethod
    def of(cls, manager: Manager, inventory: Inventory, metrics: Metrics) -> Self:
        cluster = ClusterStateReader(manager)
        status = StatusReporter(manager, inventory, cluster)
        return cls(
            manager=manager,
            inventory=inventory,
            service=CertificateService(manager, inventory),
            cluster=cluster,
            status=status,
            stream=StatusStream(status.look),
            guard=Guard(manager.config.admin_token),
            metrics=metrics,
        )
