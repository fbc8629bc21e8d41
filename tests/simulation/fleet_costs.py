"""What one piece of work costs the storage and the CA, counted on the real code over a few names.

Knows which runs isolate a piece of work; must not know how many names a fleet has (``fleet``).
"""

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Any

from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.core.rate_limits import Limits

from .ca import CaModel
from .calendar_run import virtual_time
from .invariants import Invariants
from .loop import VirtualLoop
from .node import SimulatedNode, remember_task
from .pace import slowed
from .storage import StorageModel

_BEGUN = 1_800_000_000.0
_NAMES = 20
HOUR = 3_600.0


@dataclass(frozen=True, slots=True)
class Costs:
    """Storage calls: of one node a second, and of each piece of work; ``more`` is what each further node adds."""

    idle: float
    idle_data_node: float
    order: float
    renewal: float
    attempt: float
    check: float
    check_more: float
    check_requests_more: float  # requests to the CA for renewal windows


@dataclass
class _Counted:
    calls: int = 0
    requests: int = 0
    kinds: Counter[str] = field(default_factory=Counter)


def measure() -> Costs:
    """Run each piece of work, and subtract the run without it."""
    idle, hour = _run(names=0, seconds=HOUR), _run(names=0, seconds=HOUR, role="data")
    begun, nothing = _run(names=_NAMES, seconds=600.0), _run(names=0, seconds=600.0)
    lived = [
        _run(names=_NAMES, seconds=seconds, lifetime=4 * HOUR, renew_before="25%") for seconds in (HOUR, 3.5 * HOUR)
    ]
    rest = _run(names=0, seconds=2.5 * HOUR)
    checked = [_check_costs(nodes) for nodes in (1, 3)]
    return Costs(
        idle=idle.calls / HOUR,
        idle_data_node=hour.calls / HOUR,
        order=(begun.calls - nothing.calls) / _NAMES,
        renewal=(lived[1].calls - lived[0].calls - rest.calls) / _NAMES,
        attempt=_attempt_cost(),
        check=checked[0][0],
        check_more=(checked[1][0] - checked[0][0]) / 2,
        check_requests_more=(checked[1][1] - checked[0][1]) / 2,
    )


def _check_costs(nodes: int) -> tuple[float, float]:
    """Return storage calls and CA requests of one check of one name that is not due, by all nodes together."""
    counted = []
    for names in (_NAMES, 0):
        first, last = (
            _run(names=names, seconds=seconds, lifetime=45 * 24 * HOUR, nodes=nodes, pace=20.0)
            for seconds in (12 * HOUR, 36 * HOUR)
        )
        counted.append((last.calls - first.calls, last.requests - first.requests))
    checks = _NAMES * 4  # in a day, every six hours
    return (counted[0][0] - counted[1][0]) / checks, (counted[0][1] - counted[1][1]) / checks


def _attempt_cost() -> float:
    """Return the storage calls of one renewal that is not tried because the CA is down."""
    options: dict[str, Any] = {"lifetime": 400 * HOUR, "renew_before": "25%", "pace": 20.0}
    down, calm = (_run(names=2, seconds=320 * HOUR, down_from=at, **options) for at in (HOUR, 1e9))
    moved = down.kinds["moved"] - calm.kinds["moved"]
    return (down.calls - calm.calls) / moved


def _run(
    *,
    names: int,
    seconds: float,
    lifetime: float = 45 * 24 * HOUR,
    nodes: int = 1,
    role: str = "standalone",
    renew_before: str = "auto",
    pace: float = 1.0,
    down_from: float = 1e9,
) -> _Counted:
    """Run nodes for some virtual time, and count."""
    loop, counted = VirtualLoop(), _Counted()
    loop.set_task_factory(remember_task)
    random = Random("costs")
    logging.getLogger("mitmproxy_acme").propagate = False

    def now() -> float:
        return _BEGUN + loop.time()

    def watch(node: int, call: str, arguments: tuple[Any, ...], result: object) -> None:
        counted.calls += 1
        counted.kinds["moved"] += call == "put" and arguments[0].startswith("calendar/")

    storage = StorageModel(random, now)
    storage.watch = watch
    invariants = Invariants(now, lifetime)
    ca = CaModel(random, now, lifetime, True, Limits(), invariants, ask_again=6 * HOUR)
    options = {
        "acme_domains": ("*.example.test",),
        "acme_tos_accepted": True,
        "acme_idle": "off",
        "acme_orders_per_client": "off",
    }
    config = Config.from_options({**options, "acme_role": role, "acme_renew_before": renew_before})
    members = [SimulatedNode(number, config, storage, (ca,), random, now) for number in range(nodes)]

    async def live() -> None:
        for member in members:
            member.start()
        manager = members[0].manager
        assert manager is not None
        for number in range(names):
            await manager.certificate_for(ServerName(f"n{number}.example.test"), on_demand=True, client="192.0.2.1")
        await asyncio.sleep(max(min(down_from, seconds) - loop.time(), 0.0))
        ca.down = down_from < seconds
        await asyncio.sleep(max(seconds - loop.time(), 0.0))

    with virtual_time(loop, _BEGUN), slowed(pace):
        loop.run_until_complete(live())
        counted.requests = ca.requests
        for member in members:
            member.crash()
        loop.run_until_complete(asyncio.sleep(0))
    asyncio.set_event_loop(None)
    loop.close()
    return counted
