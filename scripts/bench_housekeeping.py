"""What very many expired certificates cost: the start beside them, and the housekeeping that removes them.

Knows the housekeeper and counted calls; must not know how a store is run, or how proxies are started.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from unittest import mock

import mitmproxy_acme.lifecycle.cautious_clock as cautious_clock
from acme_storage import Storage
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.renewal import DAY
from mitmproxy_acme.lifecycle.manager import Manager
from mitmproxy_acme.lifecycle.renewal.housekeeper import Housekeeper
from mitmproxy_acme.store.encryption import RecordCipher
from mitmproxy_acme.store.expired_certificates import ExpiredCertificates, Walk
from mitmproxy_acme.store.store import Slot, Store
from scripts.bench_hoard import LocalCA, certificates
from scripts.bench_pass import Counted, Pass
from scripts.bench_report import Row, spread

KEEP = 30 * DAY
# A certificate of the bench lives for 31 days after it is due.
_ENDED = KEEP + 32 * DAY
_LAG_EVERY = 0.005  # seconds
_PASSES = 40
# 100 removals with a dozen calls each, 500 certificates that are read and listed, and the lease.
_MOST_CALLS = 100 * 12 + 500 * 2 + 20
_WRITERS = 4


@dataclass(frozen=True)
class Housekeeping:
    """The first passes, one with nothing to do, and how late the event loop was meanwhile (ms)."""

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
    expired = certificates(ca, count, zone, start=time.time() - _ENDED - 2 * DAY, hours=24)
    with ThreadPoolExecutor(_WRITERS) as writers:
        assert all(writers.map(lambda certificate: store.replace(Slot(None, None), certificate), expired))


def remove_expired(storage: Storage, ca: LocalCA, zone: str) -> Housekeeping:
    """Do some passes, without rests, and one that finds nothing; each call of the storage is counted."""
    return asyncio.run(_remove_expired(storage, ca, zone))


async def _remove_expired(storage: Storage, ca: LocalCA, zone: str) -> Housekeeping:
    counted, lag = Counted(storage), list[float]()
    config = Config.from_options(
        {"acme_domains": (f"**.{zone}",), "acme_ca": (ca.directory,), "acme_tos_accepted": True}
    )
    manager = Manager(config, counted, issuers=(ca,))  # type: ignore[arg-type]
    housekeeper, passes = manager.make_housekeeper(), list[Pass]()
    measuring = asyncio.get_running_loop().create_task(_measure_lag(lag))
    with mock.patch.object(cautious_clock, "_PATIENCE", 0.0):  # nothing is removed in the first hour of a process
        for _ in range(_PASSES):
            passes.append(await _pass(housekeeper, counted, KEEP))
        measuring.cancel()
        ExpiredCertificates(storage).save_walk(Walk("", time.time() + DAY))
        idle = await _pass(housekeeper, counted, 100 * _ENDED)
    await manager.close()
    return Housekeeping(passes, idle, lag)


async def _pass(housekeeper: Housekeeper, counted: Counted, keep: float) -> Pass:
    counted.calls.clear()
    begun = time.perf_counter()
    await housekeeper.round(keep)
    return Pass(dict(counted.calls), time.perf_counter() - begun)


async def _measure_lag(lag: list[float]) -> None:
    while True:
        begun = time.perf_counter()
        await asyncio.sleep(_LAG_EVERY)
        lag.append((time.perf_counter() - begun - _LAG_EVERY) * 1000)


def describe(label: str, kind: str, done: Housekeeping, starts: tuple[list[float], list[float]], lost: int) -> Row:
    """Return the row; ``starts`` are the seconds on the full store and on an empty one, ``lost`` counts live ones."""
    full, empty = starts
    calls, seconds = done.spread(lambda one: one.total), done.spread(lambda one: one.seconds)
    lag = sorted(done.lag)[int(len(done.lag) * 0.99)]
    later = statistics.median(full) - statistics.median(empty)
    return Row(
        f"housekeeping-{kind}",
        f"{label}: a housekeeping pass",
        f"{calls[0]:.0f} calls of the store, {seconds[0] * 1000:.0f} ms; at most {calls[1]:.0f}, {seconds[1]:.2f} s",
        f"nothing due: {done.idle.total} calls, {done.idle.seconds * 1000:.1f} ms",
        None,
        "bounded, ready under 1 s more",
        calls[1] <= _MOST_CALLS and not lost and later < 1,
        f"the first {len(done.passes)} passes in this process, without rests. The expired ones were on no list; {lost} "
        f"of the others were lost. The event loop was late by {lag:.0f} ms (p99). Ready with all of them stored: "
        f"{spread(full, 's', 2)}, empty store {spread(empty, 's', 2)}, {len(full)} times each.",
        {
            "calls": [one.total for one in done.passes],
            "seconds": [one.seconds for one in done.passes],
            "full_s": full,
            "empty_s": empty,
        },
    )
