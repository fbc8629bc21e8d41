"""Visitors: they come at any time, to any node, and ask for any name.

Knows what a handshake asks of a node; must not know what goes wrong.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from random import Random

from acme_storage import StorageError
from mitmproxy_acme.core.errors import AcmeError
from mitmproxy_acme.core.names import ServerName

from .invariants import Invariants, Violation
from .node import SimulatedNode

_HANDSHAKE = 15.0  # seconds for which a visitor is held


class Visitors:
    """All visitors of one run; ``count`` is how many have come."""

    def __init__(
        self,
        nodes: Sequence[SimulatedNode],
        names: Sequence[str],
        invariants: Invariants,
        random: Random,
        time: Callable[[], float],
        trace: "hashlib._Hash",
    ) -> None:
        self._nodes, self._names = nodes, names
        self._invariants = invariants
        self._random = random
        self._time = time
        self._trace = trace
        self.count = 0

    async def come(self, every: float) -> None:
        """Come for ever, ``every`` so many seconds on average."""
        while True:
            await asyncio.sleep(self._random.expovariate(1 / every))
            node = self._random.choice(self._nodes)
            name = self._random.choice(self._names)
            if node.manager is not None:
                self.count += 1
                node.spawn(partial(self._handshake, node, name))

    async def _handshake(self, node: SimulatedNode, name: str) -> None:
        manager, number = node.manager, node.number
        if manager is None:
            return
        certificate, reason = manager.cache.get(ServerName(name)), "nothing came"
        if certificate is None:
            try:
                async with asyncio.timeout(_HANDSHAKE):
                    certificate = await manager.certificate_for(ServerName(name), on_demand=True, client="192.0.2.1")
            except (AcmeError, StorageError, TimeoutError) as error:
                reason = f"{type(error).__name__}: {error}"
        self._trace.update(f"{self._time():.6f} {number} served {name} {certificate is not None}\n".encode())
        with contextlib.suppress(Violation):  # it is noted, and ends the run
            if certificate is not None:
                manager.usage.served[certificate.id] = certificate  # as a handshake does
                clock_is_right = not self._invariants.clock_is_wrong and node.clock_error == 0
                self._invariants.served(number, name, certificate, clock_is_right=clock_is_right)
            else:
                self._invariants.not_served(number, name, reason)
