"""What very many expired certificates cost: the start beside them, and the housekeeping that removes them.

Knows the housekeeper and counted calls; must not know how a store is run, or how proxies are started.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from acme_storage import Storage
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.store import Slot, Store
from scripts.bench_hoard import LocalCA, certificates
from scripts.bench_pass import Counted, Pass

KEEP = 30 * DAY
# A certificate of the bench lives for 31 days after it is due.
_ENDED = KEEP + 32 * DAY
_LAG_EVERY = 0.005  # seconds


@dataclass(frozen=True)
class Housekeeping:
    """The passes that removed everything, one with nothing to do, and how late the event loop was meanwhile (ms)."""

    passes: Sequence[Pass]
    idle: Pass
    lag: Sequence[float]

    def spread(self, of: Callable[[Pass], float]) -> tuple[float, float]:
        """The median and the largest of the passes."""
        found = [of(one) for one in self.passes]
        return statistics.median(found), max(found)


def put_expired(storage: Storage, ca: LocalCA, count: int, zone: str) -> None:
    """Store so many that ended over 30 days ago, on no list: as earlier releases left them."""
    store = Store(storage, RecordCipher(()))
    for certificate in certificates(ca, count, zone, start=time.time() - _ENDED - 2 * DAY, hours=24):
        assert store.replace(Slot(None, None), certificate)


def remove_expired(storage: Storage, ca: LocalCA, zone: str) -> Housekeeping:
    """Do passes until nothing is left, without the rests between them; each call of the storage is counted."""
    return asyncio.run(_remove_expired(storage, ca, zone))


async def _remove_expired(storage: Storage, ca: LocalCA, zone: str) -> Housekeeping:
    counted, lag = Counted(storage), list[float]()
    config = Config.from_options(
        {"acme_domains": (f"**.{zone}",), "acme_ca": (ca.directory,), "acme_tos_accepted": True}
    )
    manager = Manager(config, counted, issuers=(ca,))  # type: ignore[arg-type]
    housekeeper, passes = manager.make_housekeeper(), list[Pass]()
    measuring = asyncio.get_running_loop().create_task(_measure_lag(lag))
    while True:
        counted.calls.clear()
        begun = time.perf_counter()
        await housekeeper.round(KEEP)
        passes.append(Pass(dict(counted.calls), time.perf_counter() - begun))
        if passes[-1].total <= 2:  # nothing was due, and the walk had ended
            break
    measuring.cancel()
    await manager.close()
    return Housekeeping(passes[:-1], passes[-1], lag)


async def _measure_lag(lag: list[float]) -> None:
    while True:
        begun = time.perf_counter()
        await asyncio.sleep(_LAG_EVERY)
        lag.append((time.perf_counter() - begun - _LAG_EVERY) * 1000)
